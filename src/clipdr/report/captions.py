"""Images of the pool with their real caption and all synthetic ones (Figure 5 of MobileCLIP), chosen as in the chain's
picture: nobody picks.
"""

import textwrap
from pathlib import Path

from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.report.chain import HUMAN, SHOWN, SYNTHETIC, choose, read_image, read_table

WIDTH, LINE = 26, 0.038  # characters of a line of text, and its height as a share of the figure's


def draw(pool: Path, captions: Path, output: Path, number: int = 6) -> None:
    """Write the PNG. Raises UserError naming the file for a missing index, captions file, shard or member."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    chosen = choose(read_table(pool / "index.parquet"), read_table(captions), number)
    if not len(chosen):
        raise UserError(
            f"{captions}: no captioned image of the pool, of the vendors {', '.join(SHOWN)}; nothing to draw"
        )
    with plt.rc_context({"font.size": 9, "text.parse_math": False}):
        figure = plt.figure(figsize=(2.1 * number, 5.2))
        for column, item in enumerate(chosen.itertuples()):
            axis = figure.add_axes(((column + 0.1) / number, 0.66, 0.8 / number, 0.32))
            axis.imshow(read_image(pool, item.shard, item.uid), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            _write_captions(figure, (column + 0.5) / number, str(item.caption), list(item.syn))
            if credit := SHOWN.get(getattr(item, "vendor", None)):
                figure.text((column + 0.5) / number, 0.05, credit, ha="center", color="0.5", fontsize=7)
        figure.text(0.5, 0.01, "blue: real caption   orange: synthetic captions", ha="center", fontsize=8)
        with atomic_file(output) as partial:
            figure.savefig(partial, format="png", dpi=150, metadata={"Software": None}, facecolor="white")
        plt.close(figure)


def _write_captions(figure, center: float, real: str, synthetic: list[str]) -> None:
    top = 0.63
    for text, colour in ((real, HUMAN), *((text, SYNTHETIC) for text in synthetic)):
        lines = textwrap.wrap(str(text), WIDTH, max_lines=3, placeholder=" …") or [""]
        figure.text(center, top, "\n".join(lines), ha="center", va="top", color=colour)
        top -= LINE * len(lines) + 0.015
