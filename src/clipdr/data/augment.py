"""Image augmentations as numbers: drawn once, stored, replayed by every run.

An entry is DataCompDR's: `[[top, left, height, width], [[op, magnitude], …]]`. The crop box is in pixels of the stored
image; op indices and magnitudes are those of RandAugment as torchvision implements it (MobileCLIP, Appendix C). Two ops
are our own, which readers of DataCompDR do not know: a flip, before the others, and the erasing of a box, after them.

Shape suffixes: A views, B batch, C channels, S side.
"""

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

NUM_BINS = 31
# op index -> (name, largest magnitude, signed); translations are in pixels of an image `size` wide.
OPS = (
    ("Identity", lambda size: 0.0, False),
    ("ShearX", lambda size: 0.3, True),
    ("ShearY", lambda size: 0.3, True),
    ("TranslateX", lambda size: 150.0 / 331.0 * size, True),
    ("TranslateY", lambda size: 150.0 / 331.0 * size, True),
    ("Rotate", lambda size: 30.0, True),
    ("Brightness", lambda size: 0.9, True),
    ("Color", lambda size: 0.9, True),
    ("Contrast", lambda size: 0.9, True),
    ("Sharpness", lambda size: 0.9, True),
    ("Posterize", None, False),
    ("Solarize", None, False),
    ("AutoContrast", lambda size: 0.0, False),
    ("Equalize", lambda size: 0.0, False),
)
NAMES = tuple(name for name, _, _ in OPS)
FLIP, ERASE = len(OPS), len(OPS) + 1  # indices of our own


def draw(rng: np.random.Generator, width: int, height: int, settings: dict) -> list:
    """Draw one entry.

    Args:
        rng: the source of randomness.
        width, height: of the stored image, px.
        settings: `image_size` (px of the crop after resizing), `crop_scale` (min, max share of the area),
            `num_ops`, `magnitude` (bin, 0 … 30) and, if not all of `OPS` may be drawn, `ops` (their names); `flip` and
            `erase`, the probabilities of our own, if they may be drawn at all.
    """
    allowed = [index for index, (name, _, _) in enumerate(OPS) if name in settings.get("ops", NAMES)]
    ops = [allowed[rng.integers(len(allowed))] for _ in range(settings["num_ops"])]
    crop = _crop(rng, width, height, settings["crop_scale"])
    drawn: list = [[op, _magnitude(op, settings["magnitude"], settings["image_size"], rng)] for op in ops]
    if "flip" in settings:
        drawn.insert(0, [FLIP, 1.0] if rng.random() < settings["flip"] else None)
    if "erase" in settings:
        drawn.append([ERASE, _box(rng, settings["image_size"])] if rng.random() < settings["erase"] else None)
    return [crop, drawn]


def _crop(rng: np.random.Generator, width: int, height: int, scale: tuple[float, float]) -> list[int]:
    """[top, left, height, width] of a random crop: area share in `scale`, aspect ratio in (3/4, 4/3).

    Where ten draws fit no such crop into the image, the largest central crop of an allowed ratio, as in torchvision.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w]
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return [(height - h) // 2, (width - w) // 2, h, w]


def _box(rng: np.random.Generator, size: int) -> list[float]:
    """[top, left, height, width] as shares of the side, with the area and aspect of torchvision's RandomErasing."""
    while True:
        area = size * size * rng.uniform(0.02, 0.33)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < size and w < size:
            return [x / size for x in (int(rng.integers(size - h + 1)), int(rng.integers(size - w + 1)), h, w)]


def _magnitude(op: int, magnitude: int, size: int, rng: np.random.Generator) -> float:
    name, largest, signed = OPS[op]
    if name == "Posterize":
        return float(8 - round(magnitude / ((NUM_BINS - 1) / 4)))
    if name == "Solarize":
        return 255.0 * (1 - magnitude / (NUM_BINS - 1))
    value = largest(size) * magnitude / (NUM_BINS - 1)
    return -value if signed and rng.integers(2) else value


def replay(image: Image.Image, entry: list, size: int) -> Image.Image:
    """Apply a stored entry: crop, resize to `size` × `size` (bicubic), then the ops in order. RGB in, RGB out."""
    (top, left, height, width), ops = entry
    view = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    return _apply_all(view, ops)


def whole(image: Image.Image) -> list:
    """The entry of an image as it is: its largest square, from the middle."""
    side = min(image.size)
    return [[(image.height - side) // 2, (image.width - side) // 2, side, side], []]


def view_array(image: Image.Image, entries: list, size: int) -> np.ndarray:
    """The views of an image: uint8 [A, 3, size, size], one per entry."""
    views = [_array(replay(image, entry, size)) for entry in entries]
    return np.stack(views) if views else np.zeros((0, 3, size, size), np.uint8)


def afresh(img_BCSS: np.ndarray, settings: dict, rngs: Iterable[np.random.Generator]) -> np.ndarray:
    """Ops drawn over views that are there already, one generator for each: what the student sees and no teacher saw.

    Args:
        img_BCSS: uint8 views.
        settings: `num_ops`, `magnitude` and what else `draw` reads of ops; the crop remains that of the view.
    """
    size = img_BCSS.shape[-1]
    settings = {**settings, "image_size": size, "crop_scale": (1.0, 1.0)}
    views = []
    for img_CSS, rng in zip(img_BCSS, rngs, strict=True):
        _, ops = draw(rng, size, size, settings)
        views.append(_array(_apply_all(Image.fromarray(img_CSS.transpose(1, 2, 0)), ops)))
    return np.stack(views)


def _array(view: Image.Image) -> np.ndarray:
    return np.asarray(view).transpose(2, 0, 1)


def _apply_all(view: Image.Image, ops: list) -> Image.Image:
    """An op that is `null` was skipped when it was drawn."""
    size = view.width
    for op, magnitude in filter(None, ops):
        if op == FLIP:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        elif op == ERASE:
            top, left, height, width = (round(share * size) for share in magnitude)
            view.paste((0, 0, 0), (left, top, left + width, top + height))
        else:
            view = _apply(view, OPS[op][0], magnitude)
    return view


def _apply(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    from torchvision.transforms import functional as F

    shear = {"ShearX": (math.degrees(math.atan(magnitude)), 0.0), "ShearY": (0.0, math.degrees(math.atan(magnitude)))}
    shift = {"TranslateX": [int(magnitude), 0], "TranslateY": [0, int(magnitude)]}
    match name:
        case "Identity":
            return image
        case "ShearX" | "ShearY":
            return F.affine(image, 0.0, [0, 0], 1.0, list(shear[name]), center=[0, 0])
        case "TranslateX" | "TranslateY":
            return F.affine(image, 0.0, shift[name], 1.0, [0.0, 0.0])
        case "Rotate":
            return F.rotate(image, magnitude)
        case "Brightness":
            return F.adjust_brightness(image, 1.0 + magnitude)
        case "Color":
            return F.adjust_saturation(image, 1.0 + magnitude)
        case "Contrast":
            return F.adjust_contrast(image, 1.0 + magnitude)
        case "Sharpness":
            return F.adjust_sharpness(image, 1.0 + magnitude)
        case "Posterize":
            return F.posterize(image, int(magnitude))
        case "Solarize":
            return F.solarize(image, magnitude)
        case "AutoContrast":
            return F.autocontrast(image)
        case "Equalize":
            return F.equalize(image)
