"""Draw the chain of stages as a row of boxes and, beneath, images of the pool with a human and a synthetic caption.

Which images: those of the vendors whose licences let a README show them (SHOWN), with a synthetic caption, in the
order of sha256(uid), the first of each concept; of a pool without vendors, all. Nobody picks, and the picture changes
only when the pool does.
"""

import hashlib
import io
import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.report.picture import save

SHOWN = {"noto": "Noto Emoji, Apache-2.0", "fluent-emoji-flat": "Fluent Emoji, MIT"}
STAGES = (
    ("pool", "images and texts"),
    ("subset", "by hash of uid"),
    ("captions", "by a CoCa model"),
    ("reinforced\nshards", "augmentations,\nteacher embeddings"),
    ("runs", "one per row\nand seed"),
    ("evaluations", "one per run,\na suite of tasks"),
    ("tables", "reproduced beside\npublished"),
)
ENOUGH = 10_000  # images to choose from
IMAGES = ("webp", "jpg", "png")  # as in clipdr.data.shards, whose packages a report does without
INK, HUMAN, SYNTHETIC, BOX = "#333333", "#2f6db3", "#b3652f", "#eef3f9"


def draw(pool: Path, captions: Path, output: Path, number: int = 6) -> None:
    """Write the PNG. Raises UserError naming the file for a missing index, captions file, shard or member."""
    with picture(pool, captions, output, number, (12, 4.6)) as (figure, chosen):
        _boxes(figure.add_axes((0.01, 0.68, 0.98, 0.3)))
        width = 0.98 / number
        for i, item in enumerate(chosen.itertuples()):
            left = 0.01 + i * width
            show(figure.add_axes((left + 0.1 * width, 0.33, 0.8 * width, 0.31)), read_image(pool, item.shard, item.uid))
            _texts(figure, left + width / 2, item)
        for x, words, color in ((0.43, "blue: human text", HUMAN), (0.57, "orange: synthetic caption", SYNTHETIC)):
            figure.text(x, 0.02, words, ha="center", va="bottom", color=color, fontsize=8)


@contextmanager
def picture(pool: Path, captions: Path, output: Path, number: int, size: tuple[float, float]) -> Iterator[tuple]:
    """(figure to draw on, lines of the images to show); the figure is written as a PNG when the block ends."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    some = read_captions(captions)
    chosen = choose(read_table(pool / "index.parquet", [("shard", "in", list(some["shard"].unique()))]), some, number)
    if not len(chosen):
        raise UserError(
            f"{captions}: no captioned image of the pool, of the vendors {', '.join(SHOWN)}; nothing to draw"
        )
    with plt.rc_context({"font.size": 9, "text.parse_math": False}):
        figure = plt.figure(figsize=size)
        yield figure, chosen
        save(figure, output)


def choose(index: pd.DataFrame, captions: pd.DataFrame, number: int) -> pd.DataFrame:
    """The images to show, as lines of `index` with `syn` (list of str) joined by uid; at most `number` lines."""
    drawings = "vendor" in index  # or your own images
    shown = index[index["vendor"].isin(list(SHOWN))] if drawings else index
    both = shown.merge(captions[["uid", "syn"]], on="uid")
    order = both["uid"].map(lambda uid: hashlib.sha256(str(uid).encode()).hexdigest())
    return both.assign(order=order).sort_values("order").drop_duplicates("concept" if drawings else "uid").head(number)


def read_captions(manifest: Path) -> pd.DataFrame:
    """`uid`, `syn` and `shard` of the first shards, with as many images as a picture is chosen from.

    Raises:
        UserError: the manifest or a file that it names is missing.
    """
    if not manifest.exists():
        raise UserError(f"{manifest}: missing; build the pool and its captions first")
    tables, images = [], 0
    for file, number in json.loads(manifest.read_text())["shards"].items():
        tables.append(read_table(manifest.parent / file).assign(shard=f"{Path(file).stem}.tar"))
        images += number
        if images >= ENOUGH:
            break
    return pd.concat(tables, ignore_index=True)


def read_table(path: Path, filters: list | None = None) -> pd.DataFrame:
    """Lines of a parquet file. Raises UserError if it is missing."""
    if not path.exists():
        raise UserError(f"{path}: missing; build the pool and its captions first")
    return pd.read_parquet(path, filters=filters)


def read_image(pool: Path, shard: str, uid: str):
    """The image of `uid` as a PIL RGB image. Raises UserError if the shard lacks it."""
    import tarfile

    from PIL import Image

    path = pool / str(shard)
    try:
        with tarfile.open(path) as tar:
            name = next(name for name in tar.getnames() if name in {f"{uid}.{extension}" for extension in IMAGES})
            return Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB")
    except (OSError, StopIteration, tarfile.TarError) as error:
        raise UserError(f"{path}: cannot read the image of {uid} ({error!r}); build the pool again") from error


def _boxes(axis) -> None:
    axis.set_axis_off()
    axis.set_xlim(0, len(STAGES))
    axis.set_ylim(0, 1)
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    box = {"boxstyle": "round,pad=0,rounding_size=0.06", "facecolor": BOX, "edgecolor": INK, "linewidth": 0.9}
    from matplotlib.patches import FancyBboxPatch

    for i, (name, what) in enumerate(STAGES):
        axis.add_patch(FancyBboxPatch((i + 0.1, 0.48), 0.8, 0.44, **box, mutation_aspect=2))
        axis.text(i + 0.5, 0.7, name, ha="center", va="center", fontsize=11, color=INK)
        axis.text(i + 0.5, 0.4, what, ha="center", va="top", fontsize=8, color="0.35")
        if i:
            axis.annotate("", xy=(i + 0.09, 0.7), xytext=(i - 0.09, 0.7), arrowprops=arrow)


def show(axis, image) -> None:
    """Draw an image in its own pixels."""
    axis.imshow(image, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("0.8")


def _texts(figure, center: float, item) -> None:
    human, synthetic = (
        textwrap.fill(str(text), 24, max_lines=3, placeholder=" …") for text in (item.caption, item.syn[0])
    )
    for y, text, color in ((0.31, human, HUMAN), (0.2, synthetic, SYNTHETIC)):
        figure.text(center, y, text, ha="center", va="top", color=color, fontsize=9)
    name_source(figure, center, 0.075, item)


def name_source(figure, center: float, height: float, item) -> None:
    """Write whose drawing it is, for those that were published under a licence."""
    if credit := SHOWN.get(getattr(item, "vendor", None)):
        figure.text(center, height, credit, ha="center", va="bottom", color="0.5", fontsize=7)
