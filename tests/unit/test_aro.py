"""ARO's files, in both forms, against what its own code would make of them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.evaluate.aro import build
from clipdr.evaluate.kinds import choice
from clipdr.evaluate.order import negatives, written


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, "PNG")
    return buffer.getvalue()


# image, box (x, y, width, height), true and false caption, group; the first two are one picture.
CASES = [
    (0, (2, 3, 10, 8), "a dog on a mat", "a mat on a dog", "on"),
    (1, (0, 0, 30, 20), "a cup in a box", "a box in a cup", "in"),
    (0, (2, 3, 10, 8), "a mat under a dog", "a dog under a mat", "under"),
    (0, (5, 5, 9, 9), "a dog on grass", "grass on a dog", "on"),
]
ORDER = [(0, "a big dog runs on grass"), (1, "two cups"), (0, "one dog, outside")]


def samples(folder) -> list[dict]:
    return list(read_shard(folder / "test/0.tar"))


def picture(sample: dict) -> np.ndarray:
    data = next(value for name, value in sample.items() if name in ("webp", "png"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def relation_json(folder, attributes: bool = False):
    (folder / "images").mkdir()
    for seed in (0, 1):
        (folder / f"images/{seed}.png").write_bytes(png(seed))
    entries = [
        {"image_path": f"{seed}.png", "true_caption": true, "false_caption": false}
        | dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), box, strict=True))
        | ({"attributes": [group, "old"]} if attributes else {"relation_name": group})
        for seed, box, true, false, group in CASES
    ]
    (folder / "file.json").write_text(json.dumps(entries))
    return folder / "file.json", folder / "images"


def relation_parquet(folder):
    rows = [
        {"image": {"bytes": png(seed), "path": None}, "true_caption": true, "false_caption": false}
        | {"relation_name": group, "bbox": dict(zip("xywh", box, strict=True))}
        for seed, box, true, false, group in CASES
    ]
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:3]), folder / "data/0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[3:]), folder / "data/1.parquet")
    return folder / "data", None


@pytest.mark.parametrize("form", [relation_json, relation_parquet])
def test_relations_are_cut_to_their_boxes(tmp_path, form):
    build(*form(tmp_path), 0, tmp_path / "task")
    found = samples(tmp_path / "task")
    boxes = list(dict.fromkeys((seed, box) for seed, box, *_ in CASES))
    assert len(found) == len(boxes) == 3
    for sample, (seed, (x, y, w, h)) in zip(found, boxes, strict=True):
        np.testing.assert_array_equal(picture(sample), pixels(seed)[y : y + h, x : x + w])
        own = [case for case in CASES if case[:2] == (seed, (x, y, w, h))]
        assert json.loads(sample["cases.json"]) == [
            {"options": [true, false], "group": group} for *_, true, false, group in own
        ]


def test_attributes_are_named_in_pairs(tmp_path):
    build(*relation_json(tmp_path, attributes=True), 0, tmp_path / "task")
    groups = [case["group"] for sample in samples(tmp_path / "task") for case in json.loads(sample["cases.json"])]
    assert sorted(groups) == ["in_old", "on_old", "on_old", "under_old"]


def test_frozen_orders_are_taken_as_they_are(tmp_path):
    rows = [
        {"images": [{"bytes": png(seed), "path": "x"}], "correct_caption": caption}
        | {f"hard_text_{n}": f"{caption} {n}" for n in range(1, 5)}
        for seed, caption in ORDER
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "order.parquet")
    build(tmp_path / "order.parquet", None, 0, tmp_path / "task")
    first, second = samples(tmp_path / "task")
    assert (first["png"], second["png"]) == (png(0), png(1))  # byte by byte, and each once
    cases = json.loads(first["cases.json"])
    assert [case["options"] for case in cases] == [
        [caption, *(f"{caption} {n}" for n in range(1, 5))] for seed, caption in ORDER if seed == 0
    ]


def test_captions_without_orders_get_ours(tmp_path):
    (tmp_path / "0.png").write_bytes(png(0))
    captions = [caption for seed, caption in ORDER if seed == 0]
    (tmp_path / "karpathy.json").write_text(json.dumps([{"image": "0.png", "caption": captions}]))
    build(tmp_path / "karpathy.json", None, 7, tmp_path / "task")
    (sample,) = samples(tmp_path / "task")
    expected = [[written(text), *wrong] for text, wrong in zip(captions, negatives(captions, 7), strict=True)]
    assert [case["options"] for case in json.loads(sample["cases.json"])] == expected


class Ones:
    """An encoder that tells nothing apart."""

    def images(self, images, skip):
        rows = [1.0 for _ in images]
        return np.ones((len(rows), 2)), np.ones(len(rows), bool)

    def texts(self, texts):
        return np.ones((len(texts), 2))


def test_other_captions_than_the_suite_means_are_refused(tmp_path):
    build(*relation_json(tmp_path), 0, tmp_path / "task")
    entry = {"key": "aro/t", "kind": "choice", "ties": "wrong"}
    asked = [case for sample in samples(tmp_path / "task") for case in json.loads(sample["cases.json"])]
    right = choice.options_hash(asked)
    assert choice.score(choice.open_task(tmp_path / "task", entry | {"options_sha256": right}), Ones())
    with pytest.raises(UserError, match=f"captions have sha256 {right}, but the suite says {'0' * 64}"):
        choice.score(choice.open_task(tmp_path / "task", entry | {"options_sha256": "0" * 64}), Ones())


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '[{"true_caption": "a"}]', '[{"image": "gone.png", "caption": ["a dog"]}]', '[["a", "b"]]'],
)
def test_a_file_that_is_none_of_aro(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(UserError, match=r"file.json (cannot be read|holds no cases)"):
        build(tmp_path / "file.json", None, 0, tmp_path / "task")
    assert not (tmp_path / "task").exists()
