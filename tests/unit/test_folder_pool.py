"""A pool of one's own images: what is read, what is held out, and what is refused or skipped."""

import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from held_out import held_out, opened
from PIL import Image

from clipdr.data.samples import decode_image
from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError
from clipdr.files import sha256
from clipdr.pool.folder import build

POOL = {"kind": "folder", "held_out": 3, "shard_size": 4, "seed": 0, "bad_samples": "fail"}


def picture(number: int, kind: str = "JPEG") -> bytes:
    """An image that no other number gives."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Twelve images in a folder, with two captions each."""
    (tmp_path / "images").mkdir()
    for number in range(12):
        (tmp_path / f"images/{number}.jpg").write_bytes(picture(number))
    lines = [(f"images/{n}.jpg", f"{word} picture {n}", f"class {n % 2}") for n in range(12) for word in ("a", "one")]
    return pd.DataFrame(lines, columns=["image", "caption", "label"])


def made(folder: Path, source: Path, **changes) -> tuple[dict[str, dict], pd.DataFrame]:
    """(samples of the pool by uid, its index), in order."""
    build(source, POOL | changes, folder / "pool", folder / "tasks")
    samples = [sample for shard in sorted((folder / "pool").glob("*.tar")) for sample in read_shard(shard)]
    return {sample["__key__"]: sample for sample in samples}, pd.read_parquet(folder / "pool/index.parquet")


def from_table(folder: Path, table: pd.DataFrame, **changes) -> tuple[dict[str, dict], pd.DataFrame]:
    table.to_csv(folder / "captions.csv", index=False)
    return made(folder, folder / "captions.csv", **changes)


def pairs(folder: Path) -> list[tuple[bytes, list[str]]]:
    """The held-out images with their captions."""
    return held_out(folder / "tasks", "own/retrieval", "retrieval")


def test_every_image_is_in_the_pool_or_held_out_with_all_its_captions(tmp_path: Path, table: pd.DataFrame) -> None:
    samples, index = from_table(tmp_path, table)
    captions = {picture(n): [f"a picture {n}", f"one picture {n}"] for n in range(12)}
    trained = {sample["jpg"]: json.loads(sample["json"])["texts"] for sample in samples.values()}
    assert len(trained) == 9 and len(pairs(tmp_path)) == 3
    assert trained | dict(pairs(tmp_path)) == captions
    assert index["shard"].tolist() == ["00000.tar"] * 4 + ["00001.tar"] * 4 + ["00002.tar"]
    assert index["uid"].tolist() == list(samples)
    for sample in samples.values():
        assert sample["txt"].decode() == json.loads(sample["json"])["texts"][0]
        assert sample["__key__"] == sha256(sample["jpg"])[:32]
        assert decode_image(sample).size == (30, 20)


def test_labels_make_a_task_of_their_own(tmp_path: Path, table: pd.DataFrame) -> None:
    from_table(tmp_path, table, templates=["{c}!"])
    task = opened(tmp_path / "tasks", "own/val", "classification")
    assert task.classes == ("class 0", "class 1") and task.templates == ("{c}!",)
    numbers = {picture(n): n % 2 for n in range(12)}
    labels = held_out(tmp_path / "tasks", "own/val", "classification")
    assert len(labels) == 3 and all(numbers[image] == label for image, label in labels)
    samples, _ = from_table(tmp_path / "images", table.assign(image=table["image"].str[7:]).drop(columns="label"))
    assert not (tmp_path / "images/tasks/wds_own-val").exists()
    assert all(json.loads(sample["json"])["label"] is None for sample in samples.values())


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_tables_of_all_kinds_give_the_same_pool(tmp_path: Path, table: pd.DataFrame, suffix: str) -> None:
    path, renamed = tmp_path / f"lines.{suffix}", table.rename(columns={"image": "filepath", "caption": "title"})
    match suffix:
        case "tsv":
            renamed.to_csv(path, sep="\t", index=False)
        case "jsonl":
            renamed.to_json(path, orient="records", lines=True)
        case "parquet":
            renamed.to_parquet(path)
    (tmp_path / "other").mkdir()
    other, _ = made(tmp_path / "other", path, columns={"image": "filepath", "caption": "title"})
    assert other == from_table(tmp_path, table)[0]


def test_shards_are_read_and_copies_count_once(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    kinds = [("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")]
    for shard, (extension, kind) in enumerate(kinds):
        keys = [{"__key__": f"{shard}{n}", extension: picture(n, kind), "txt": f"no {n}".encode()} for n in range(4)]
        write_shard(tmp_path / f"mine/{shard}.tar", [*keys, {**keys[0], "__key__": f"{shard}copy", "txt": b"copy"}])
    samples, index = made(tmp_path, tmp_path / "mine")
    assert len(index) == 12 - POOL["held_out"]
    every = [(json.loads(sample["json"])["texts"]) for sample in samples.values()] + [c for _, c in pairs(tmp_path)]
    assert Counter(map(tuple, every)) == {("no 0", "copy"): 3, ("no 1",): 3, ("no 2",): 3, ("no 3",): 3}
    assert {name for sample in samples.values() for name in sample if name in ("jpg", "png", "webp", "jpeg")} <= {
        "jpg",
        "png",
        "webp",
    }


def test_a_caption_that_is_no_text_is_bad(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    samples = [{"__key__": f"s{n}", "jpg": picture(n), "txt": b"\xff" if n == 2 else b"fine"} for n in range(6)]
    write_shard(tmp_path / "mine/0.tar", samples)
    with pytest.raises(UserError, match="0.tar: s2: a caption is not UTF-8; mend it, or set pool.bad_samples to skip"):
        made(tmp_path, tmp_path / "mine")
    made(tmp_path, tmp_path / "mine", bad_samples="skip")
    assert pd.read_csv(tmp_path / "pool/skipped.csv")["reason"].tolist() == ["a caption is not UTF-8"]


def test_what_is_held_out_follows_from_the_bytes_and_the_seed(tmp_path: Path, table: pd.DataFrame) -> None:
    def chosen(name: str, lines: pd.DataFrame, **changes) -> set[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        lines = lines.assign(image=[str(tmp_path / image) for image in lines["image"]])
        from_table(folder, lines, **changes)
        return {image for image, _ in pairs(folder)}

    first = chosen("first", table)
    assert chosen("reversed", table[::-1]) == first
    assert chosen("fewer", table, held_out=2) < first
    assert chosen("seed", table, seed=1) != first


def spoil(folder: Path, table: pd.DataFrame, why: str) -> None:
    """Make image 5 bad."""
    image, its = folder / "images/5.jpg", table["image"] == "images/5.jpg"
    match why:
        case "missing":
            image.unlink()
        case "empty":
            image.write_bytes(b"")
        case "damaged":
            image.write_bytes(picture(5)[:-200])
        case "none of JPEG, PNG, WEBP":
            image.write_bytes(picture(5, "BMP"))
        case "caption is empty":
            table.loc[its, "caption"] = " "
        case "label is empty":
            table.loc[its, "label"] = ""


BAD = ["missing", "empty", "damaged", "none of JPEG, PNG, WEBP", "caption is empty", "label is empty"]


@pytest.mark.parametrize("why", BAD)
def test_a_bad_sample_stops_or_is_counted(tmp_path: Path, table: pd.DataFrame, why: str) -> None:
    spoil(tmp_path, table, why)
    with pytest.raises(UserError, match=f"5.jpg: .*{why}.*bad_samples to skip"):
        from_table(tmp_path, table)
    assert not (tmp_path / "pool").exists() and not (tmp_path / "tasks").exists()
    samples, _ = from_table(tmp_path, table, bad_samples="skip")
    skipped = pd.read_csv(tmp_path / "pool/skipped.csv")
    assert len(samples) == 8 and skipped["image"].str.endswith("5.jpg").tolist() == [True]
    assert why in skipped["reason"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="caption"), "has no column 'caption'; it has image, label: say in pool.columns"),
        (lambda t: t.iloc[:6], "has 3 different images that can be used, of which pool.held_out is to take 3"),
        (
            lambda t: pd.concat([t, t.iloc[:1].assign(label="class 1")]),
            "is the same picture as .*0.jpg, but has label 'class [01]' instead of 'class [01]'; take one out",
        ),
    ],
)
def test_tables_that_make_no_pool(tmp_path: Path, table: pd.DataFrame, change, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_table(tmp_path, change(table))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.xls", "", "captions.xls is no .csv, .tsv, .jsonl, .parquet and no folder of shards"),
        ("captions.csv", 'image,caption\n"1', "captions.csv cannot be read as a table"),
        ("captions.parquet", "image", "captions.parquet cannot be read as a table"),
        ("", "", "holds no \\*.tar"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        build(tmp_path / name, POOL, tmp_path / "pool", tmp_path / "tasks")


def test_an_image_that_changes_meanwhile_is_noticed(tmp_path: Path, table: pd.DataFrame, monkeypatch) -> None:
    from clipdr.pool import folder

    check = folder._check

    def and_change(*args):
        found = check(*args)
        for number in range(12):
            (tmp_path / f"images/{number}.jpg").write_bytes(picture(number + 100))
        return found

    monkeypatch.setattr(folder, "_check", and_change)
    with pytest.raises(UserError, match=re.escape("changed while the pool was made")):
        from_table(tmp_path, table)
    assert not (tmp_path / "pool").exists()
