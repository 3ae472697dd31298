"""Tasks of two drawings in one picture: which colour belongs to which thing, what is where, and what kinds are there.

They are the miniature's ARO and VOC. Each true caption stands beside one that swaps a word, and both name the same
things, so that a model that sees which words occur, and not how they belong together, guesses. Sentences of two things
are nowhere in the pool: that a model is at chance here is a result.
"""

import io
import json
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from clipdr.errors import UserError
from clipdr.pool.held import Held
from clipdr.pool.layout import as_webp

SCENES = 300  # of a task
COLOUR = re.compile(r"(red|orange|yellow|green|blue|purple|brown|black|white|grey|pink) (.+)")
# Relation -> where the first of two drawings stands, and where the second, in halves of the side from the top left.
RELATIONS = {"left of": ((0, 0.5), (1, 0.5)), "above": ((0.5, 0), (0.5, 1))}


def bindings(drawings: list[Held], size: int, rng: np.random.Generator) -> Iterator[dict]:
    """Two coloured things side by side; wrong is the caption with the colours swapped.

    Raises UserError where no two things differ in colour and in kind.
    """
    coloured = [(held, match.groups()) for held in drawings if (match := COLOUR.fullmatch(held.concept.label))]
    pairs = [(a, b) for a in coloured for b in coloured if a[1][0] != b[1][0] and a[1][1] != b[1][1]]
    if not pairs:
        raise UserError("pool.subgroups has no things of several colours; add geometric and heart, or ask for more")
    for number in rng.integers(len(pairs), size=SCENES):
        (first, (colour, thing)), (second, (other_colour, other_thing)) = pairs[number]
        true = f"{first.concept.label} and {second.concept.label}"
        swapped = f"{other_colour} {thing} and {colour} {other_thing}"
        yield _scene(first, second, "left of", size) | _case([true, swapped], None)


def relations(drawings: list[Held], size: int, rng: np.random.Generator) -> Iterator[dict]:
    """Two things beside or above each other; wrong is the caption with the things swapped."""
    pairs = [(a, b) for a in drawings for b in drawings if a.concept != b.concept]
    for n, number in enumerate(rng.integers(len(pairs), size=SCENES)):
        relation, (first, second) = list(RELATIONS)[n % len(RELATIONS)], pairs[number]
        true, wrong = (f"{a.concept.label} {relation} {b.concept.label}" for a, b in ((first, second), (second, first)))
        yield _scene(first, second, relation, size) | _case([true, wrong], relation)


def kinds(drawings: list[Held], classes: list[str], size: int, rng: np.random.Generator) -> Iterator[dict]:
    """Two things of different coarse classes; `npy` says which."""
    of_class = {name: [held for held in drawings if held.concept.coarse == name] for name in classes}
    for number in range(SCENES):
        first = classes[number % len(classes)]  # each class has images, also a small one
        second = classes[(number + rng.integers(1, len(classes))) % len(classes)]
        one, other = (of_class[name][rng.integers(len(of_class[name]))] for name in (first, second))
        target_C = np.array([name in (first, second) for name in classes], np.uint8)
        yield _scene(one, other, "left of", size) | {"npy": as_npy(target_C)}


def as_npy(array: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _scene(first: Held, second: Held, relation: str, size: int) -> dict[str, bytes]:
    """Both at half their size, on white."""
    page, half = Image.new("RGB", (size, size), "white"), size // 2
    for held, (x, y) in zip((first, second), RELATIONS[relation], strict=True):
        small = Image.open(io.BytesIO(held.image)).convert("RGB").resize((half, half), Image.Resampling.BICUBIC)
        page.paste(small, (int(x * half), int(y * half)))
    return as_webp(page)


def _case(options: list[str], group: str | None) -> dict[str, bytes]:
    return {"cases.json": json.dumps([{"options": options, "group": group}]).encode()}
