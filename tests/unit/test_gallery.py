"""The gallery: which images it shows, what it says of them, and outcomes that are of other images."""

import io

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from clipdr.evaluate import outcomes
from clipdr.pool.layout import write_classification, write_task
from clipdr.report import gallery

NAMES = ["cat", "dog", "owl"]


def png(red: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture()
def there(tmp_path):
    """Folder of two tasks of nine images, and of a model's outcomes: every third class is missed."""
    label = np.arange(9) % 3
    images = [{"__key__": f"{n}", "png": png(20 * n), "cls": str(label[n]).encode()} for n in range(9)]
    write_classification(tmp_path / "tasks/wds_a-val", images, NAMES, ["a {c}"])
    texts = [{"__key__": f"{n}", "png": png(20 * n), "txt": f"text {n}\nother".encode()} for n in range(9)]
    write_task(tmp_path / "tasks/wds_a-retrieval", texts, "retrieval")
    taken = np.where(label == 2, 0, label)
    outcomes.save({"label": label, "prediction": taken}, tmp_path / "scores/a-val.npz")
    outcomes.save({"first_image_rank": np.arange(9)}, tmp_path / "scores/a-retrieval.npz")
    return tmp_path


def test_what_is_said_of_an_image(there):
    found = gallery._classified(there / "tasks", [there / "other", there / "scores"], "a/val")
    assert [words for _, _, words, _, _ in found[:3]] == ["cat", "dog", "cat, but it is owl"]
    assert [hit for _, hit, *_ in found] == [True, True, False] * 3
    texts = gallery._found(there / "tasks", [there / "scores"], "a/retrieval")
    assert texts[4][1:3] == (False, "“text 4” finds it at place 5 of 9") and texts[0][1]


def test_nobody_picks(there):
    """Hits and misses are taken in an order that depends on their place alone."""
    found = gallery._classified(there / "tasks", [there / "scores"], "a/val")
    first, again = (gallery._first(2, entries, True) for entries in (found, found[::-1]))
    assert [words for _, words, _ in first] == [words for _, words, _ in again]
    assert len(gallery._first(6, found, False)) == 3 and {color for *_, color in first} == {gallery.RIGHT}


@pytest.mark.slow
def test_the_picture_is_the_same_each_time(there):
    for name in ("1.png", "2.png"):
        gallery.draw(there / "tasks", [there / "scores"], "a/val", "a/retrieval", "m", there / name)
    assert (there / "1.svg").read_bytes() == (there / "2.svg").read_bytes()
    assert min(Image.open(there / "1.png").size) > 500


def test_outcomes_of_other_images_are_refused(there):
    outcomes.save({"first_image_rank": np.arange(8)}, there / "scores/a-retrieval.npz")
    says = refused(gallery._found, there / "tasks", [there / "scores"], "a/retrieval")
    assert "has 9 images, but 8 were scored" in says
    (there / "scores/a-val.npz").unlink()
    assert "no outcomes of a/val in" in refused(gallery._classified, there / "tasks", [there / "scores"], "a/val")
