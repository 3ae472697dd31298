"""Images of the pool with their real caption and all synthetic ones (Figure 5 of MobileCLIP), chosen as in the chain's
picture: nobody picks.
"""

import textwrap
from pathlib import Path

from clipdr.report.chain import HUMAN, SYNTHETIC, name_source, picture, read_image, show

WIDTH, LINE = 26, 0.038  # characters of a line of text, and its height as a share of the figure's


def draw(pool: Path, captions: Path, output: Path, number: int = 6) -> None:
    """Write the PNG. Raises UserError naming the file for a missing index, captions file, shard or member."""
    with picture(pool, captions, output, number, (2.1 * number, 5.2)) as (figure, chosen):
        for column, item in enumerate(chosen.itertuples()):
            axis = figure.add_axes(((column + 0.1) / number, 0.66, 0.8 / number, 0.32))
            show(axis, read_image(pool, item.shard, item.uid))
            _write_captions(figure, (column + 0.5) / number, str(item.caption), list(item.syn))
            name_source(figure, (column + 0.5) / number, 0.05, item)
        figure.text(0.5, 0.01, "blue: real caption   orange: synthetic captions", ha="center", fontsize=8)


def _write_captions(figure, center: float, real: str, synthetic: list[str]) -> None:
    top = 0.63
    for text, colour in ((real, HUMAN), *((text, SYNTHETIC) for text in synthetic)):
        lines = textwrap.wrap(str(text), WIDTH, max_lines=3, placeholder=" …") or [""]
        figure.text(center, top, "\n".join(lines), ha="center", va="top", color=colour)
        top -= LINE * len(lines) + 0.015
