"""The tasks of an emoji pool: sixteen of seven kinds, from drawings that nobody trains on.

| task | kind | stands for |
|---|---|---|
| val, dev | classification, the name of the concept | ImageNet |
| the styles | classification | ImageNet's shifts |
| coarse, fine-grained | classification, the coarse class, and names within one | sets of few and of similar classes |
| digits | classification, scikit-learn's handwritten digits | MNIST |
| digits-probe | linear probe, the same images | probes of ELEVATER |
| vendors | grouped, by who drew it | FMoW, GeoDE |
| kinds | multilabel, of two things in a picture | VOC |
| retrieval | retrieval | Flickr30k |
| colours, relations, order | choice | ARO |
| associations | winogavil, which drawings go with a tag | WinoGAViL |

All but `dev`, the styles and the digits show drawings of `val`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from clipdr.evaluate.order import negatives, written
from clipdr.pool import scenes
from clipdr.pool.held import Held
from clipdr.pool.icons import Concept
from clipdr.pool.layout import as_webp, write_classification, write_split, write_task
from clipdr.pool.words import descriptions

TEMPLATES = ["{c}"]  # captions of this pool are names, not sentences
PROBED = 1000  # digits, the first of the file, that a probe is trained on
TAGS = 4  # of a caption whose order is changed
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DRAWN = ("kinds", "colours", "relations", "associations")  # tasks of which something is drawn at random
CANDIDATES, SHARE, DRAWS = 10, 4, 3  # of an association: images, the most that are right, instances of a cue


def write_tasks(folder: Path, concepts: list[Concept], splits: dict[str, list[Held]], pool: dict) -> None:
    """Write all `wds_emoji-*` folders.

    Args:
        concepts: of the pool; their labels are the classes.
        splits: `val`, `dev` and each style -> its drawings.
        pool: the scale's `pool` section.
    """
    _write_classifications(folder, concepts, splits, pool)
    _write_texts(folder, concepts, splits["val"], pool)
    digits = list(_digits())
    for task in ("digits", "digits-probe"):
        write_classification(folder / f"wds_emoji-{task}", digits[PROBED:], DIGITS, TEMPLATES)
    write_split(folder / "wds_emoji-digits-probe/train", digits[:PROBED])


def _write_classifications(folder: Path, concepts: list[Concept], splits: dict[str, list[Held]], pool: dict) -> None:
    val, labels = splits["val"], [concept.label for concept in concepts]
    for split, drawings in splits.items():
        _classes(folder / f"wds_emoji-{split}", drawings, labels, lambda held: held.concept.label)
    coarse = sorted({concept.coarse for concept in concepts})
    _classes(folder / "wds_emoji-coarse", val, coarse, lambda held: held.concept.coarse)
    fine = [held for held in val if held.concept.coarse == pool["fine_grained"]]
    names = [concept.label for concept in concepts if concept.coarse == pool["fine_grained"]]
    _classes(folder / "wds_emoji-fine-grained", fine, names, lambda held: held.concept.label)
    write_classification(folder / "wds_emoji-vendors", _with_vendor(val, labels, pool), labels, TEMPLATES)
    kinds = scenes.kinds(val, coarse, pool["image_size"], _random(pool, "kinds"))
    write_classification(folder / "wds_emoji-kinds", kinds, coarse, TEMPLATES, "multilabel")


def _write_texts(folder: Path, concepts: list[Concept], val: list[Held], pool: dict) -> None:
    """Tasks of captions: of scenes, and of one drawing a concept, since a text that fits two would be wrong for one."""
    size = pool["image_size"]
    write_task(folder / "wds_emoji-colours", scenes.bindings(val, size, _random(pool, "colours")), "choice")
    write_task(folder / "wds_emoji-relations", scenes.relations(val, size, _random(pool, "relations")), "choice")
    ones = [next(held for held in val if held.concept == concept) for concept in concepts]
    write_task(folder / "wds_emoji-retrieval", map(_described, ones), "retrieval")
    write_task(folder / "wds_emoji-order", _ordered(ones, pool["seed"]), "choice")
    files = {"instances.json": json.dumps(list(_associations(ones, _random(pool, "associations"))), indent=1)}
    write_task(folder / "wds_emoji-associations", map(_keyed, ones), "winogavil", files)


def _random(pool: dict, task: str) -> np.random.Generator:
    """One of the tasks' own, so that none depends on the others."""
    return np.random.default_rng(pool["seed"]).spawn(len(DRAWN))[DRAWN.index(task)]


def _classes(folder: Path, drawings: list[Held], classes: list[str], named) -> None:
    samples = ({"webp": held.image, "cls": str(classes.index(named(held))).encode()} for held in drawings)
    write_classification(folder, samples, classes, TEMPLATES)


def _with_vendor(drawings: list[Held], labels: list[str], pool: dict) -> Iterator[dict]:
    for held in drawings:
        group = scenes.as_npy(np.array([pool["vendors"].index(held.vendor)]))
        yield {"webp": held.image, "cls": str(labels.index(held.concept.label)).encode(), "npy": group}


def _digits() -> Iterator[dict]:
    """8 × 8 px, light on dark as MNIST."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for pixels, label in zip(found.images, found.target, strict=True):
        picture = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).convert("RGB")
        yield as_webp(picture) | {"cls": str(label).encode()}


def _described(held: Held) -> dict:
    return {"webp": held.image, "txt": "\n".join(descriptions(held.concept)).encode()}


def _ordered(drawings: list[Held], seed: int) -> Iterator[dict]:
    """A label and its first tags, and the same words in other orders."""
    captions = [" ".join([held.concept.label, *held.concept.tags[:TAGS]]) for held in drawings]
    for held, caption, wrong in zip(drawings, captions, negatives(captions, seed), strict=True):
        options = list(dict.fromkeys([written(caption), *wrong]))  # an order that changes nothing is none
        if len(options) > 1:
            cases = [{"options": options, "group": None}]
            yield {"webp": held.image, "cases.json": json.dumps(cases).encode()}


def _associations(drawings: list[Held], rng: np.random.Generator) -> Iterator[dict]:
    """For each tag of three concepts or more: which of ten drawings have it."""
    cues = Counter(tag for held in drawings for tag in sorted(set(held.concept.tags)))
    for cue in sorted(tag for tag, number in cues.items() if 3 <= number <= len(drawings) - CANDIDATES):
        for _ in range(DRAWS):
            fitting = [held for held in drawings if cue in held.concept.tags]
            others = [held for held in drawings if cue not in held.concept.tags]
            right = list(rng.choice(len(fitting), min(SHARE, len(fitting)), replace=False))
            wrong = list(rng.choice(len(others), CANDIDATES - len(right), replace=False))
            associations = [_key(fitting[n]) for n in right]
            candidates = sorted([*associations, *(_key(others[n]) for n in wrong)])
            yield {"cue": cue, "candidates": candidates, "associations": associations}


def _key(held: Held) -> str:
    return held.concept.hexcode.lower()


def _keyed(held: Held) -> dict:
    return {"__key__": _key(held), "webp": held.image}
