"""The tasks of two drawings, of words and of tags: what a picture shows is what its true caption says, and no other."""

import io
import json

import numpy as np
import pytest
from held_out import opened
from PIL import Image
from sklearn.datasets import load_digits

from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.evaluate.order import written
from clipdr.pool.emoji_tasks import write_tasks
from clipdr.pool.held import Held
from clipdr.pool.icons import Concept
from clipdr.pool.scenes import bindings

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
THINGS = {"heart": "shape", "book": "thing", "apple": "fruit"}
CONCEPTS = [
    Concept(f"1FA{n:02}", f"{colour} {thing}", coarse, (), (thing, colour, f"{colour}ish"), {})
    for n, (colour, (thing, coarse)) in enumerate((c, t) for c in COLOURS for t in THINGS.items())
]
POOL = {"seed": 0, "image_size": 16, "vendors": ["one", "other"], "fine_grained": "fruit"}
KINDS = {
    "val": "classification",
    "dev": "classification",
    "coarse": "classification",
    "fine-grained": "classification",
    "digits": "classification",
    "digits-probe": "linear_probe",
    "kinds": "multilabel",
    "retrieval": "retrieval",
    "colours": "choice",
    "relations": "choice",
    "order": "choice",
    "associations": "winogavil",
}


def drawn(concept: Concept, vendor: str) -> Held:
    """A page of one colour, slightly other ones for other things and vendors."""
    shade = 8 * list(THINGS).index(concept.label.split()[1]) + 2 * POOL["vendors"].index(vendor)
    pixels = np.clip(np.array(COLOURS[concept.label.split()[0]]) + shade, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), tuple(pixels.tolist())).save(buffer, "WEBP", lossless=True)
    return Held(concept, vendor, buffer.getvalue())


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    val = [drawn(concept, vendor) for concept in CONCEPTS for vendor in POOL["vendors"]]
    write_tasks(folder, CONCEPTS, {"val": val, "dev": val[:3]}, POOL)
    return folder


def samples(tasks, name: str) -> list[dict]:
    return list(read_shard(tasks / f"wds_emoji-{name}/test/0.tar"))


def pixel(sample: dict, x: int, y: int) -> str:
    """The colour of a pixel; white is the page."""
    found = np.asarray(Image.open(io.BytesIO(sample["webp"])).convert("RGB"))[y, x].astype(int)
    if found.min() > 200:
        return "white"
    return min(COLOURS, key=lambda name: np.abs(found - COLOURS[name]).sum())


def cases(sample: dict) -> dict:
    (case,) = json.loads(sample["cases.json"])
    return case


@pytest.mark.parametrize("name", KINDS)
def test_the_evaluator_opens_each(tasks, name):
    assert opened(tasks, f"emoji/{name}", KINDS[name])


def test_colours_are_those_of_the_true_caption(tasks):
    for sample in samples(tasks, "colours"):
        true, wrong = (option.split(" and ") for option in cases(sample)["options"])
        assert [pixel(sample, 4, 8), pixel(sample, 12, 8)] == [thing.split()[0] for thing in true]
        assert pixel(sample, 4, 1) == "white"
        # The same words in both, and no colour where it was.
        assert sorted(" ".join(true).split()) == sorted(" ".join(wrong).split())
        assert all(
            a.split()[0] != b.split()[0] and a.split()[1] == b.split()[1] for a, b in zip(true, wrong, strict=True)
        )


def test_relations_are_those_of_the_true_caption(tasks):
    places = {"left of": ((4, 8), (12, 8)), "above": ((8, 4), (8, 12))}
    seen = []
    for sample in samples(tasks, "relations"):
        true, wrong = cases(sample)["options"]
        relation = cases(sample)["group"]
        first, second = true.split(f" {relation} ")
        assert wrong == f"{second} {relation} {first}"
        assert [pixel(sample, *place) for place in places[relation]] == [first.split()[0], second.split()[0]]
        seen.append(relation)
    assert seen.count("above") == seen.count("left of") == 150


def test_kinds_are_the_coarse_classes_of_both(tasks):
    targets = np.stack([np.load(io.BytesIO(sample["npy"])) for sample in samples(tasks, "kinds")])
    assert (targets.sum(axis=1) == 2).all() and (targets.sum(axis=0) >= 100).all()


def test_order_has_the_same_words_and_no_option_twice(tasks):
    found = [cases(sample)["options"] for sample in samples(tasks, "order")]
    true = {written(" ".join([concept.label, *concept.tags])) for concept in CONCEPTS}
    assert len(found) >= 10  # of twelve: where no order differs from the true one there is no case
    for options in found:
        assert options[0] in true
        assert len(options) == len(set(options)) and len({tuple(sorted(o.split())) for o in options}) == 1


def test_associations_have_the_tag(tasks):
    tags = {concept.hexcode.lower(): concept.tags for concept in CONCEPTS}
    instances = json.loads((tasks / "wds_emoji-associations/instances.json").read_text())
    assert {sample["__key__"] for sample in samples(tasks, "associations")} == set(tags)
    for instance in instances:
        assert len(instance["candidates"]) == len(set(instance["candidates"])) == 10
        own = [key for key in instance["candidates"] if instance["cue"] in tags[key]]
        assert sorted(own) == sorted(instance["associations"])


def test_digits_are_those_of_scikit_learn(tasks):
    train, expected = list(read_shard(tasks / "wds_emoji-digits-probe/train/0.tar")), load_digits()
    found = [*train, *samples(tasks, "digits-probe")]
    assert [int(sample["cls"]) for sample in found] == expected.target.tolist() and len(train) == 1000
    assert samples(tasks, "digits") == found[1000:]
    pixels = np.asarray(Image.open(io.BytesIO(found[7]["webp"])).convert("L"))
    np.testing.assert_allclose(pixels / 255, expected.images[7] / 16, atol=1 / 255)


def test_each_vendor_is_a_group(tasks, tmp_path):
    groups = [np.load(io.BytesIO(sample["npy"])).tolist() for sample in samples(tasks, "vendors")]
    assert groups == [[0], [1]] * len(CONCEPTS)


def test_things_of_one_colour_cannot_be_told_apart_by_it():
    with pytest.raises(UserError, match="no things of several colours"):
        list(bindings([drawn(CONCEPTS[0], "one"), drawn(CONCEPTS[1], "one")], 16, np.random.default_rng(0)))
