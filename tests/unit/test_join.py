"""Published reinforcements, joined with images as img2dataset writes them: what fits is kept, the rest is counted."""

import io
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from published import SETTINGS, SHARDS, fetched, picture, published, uid

from clipdr.data.manifest import read_manifest
from clipdr.data.samples import decode
from clipdr.data.shards import read_shard, write_shard
from clipdr.data.views import read_views
from clipdr.errors import UserError
from clipdr.reinforce import join as stage
from clipdr.reinforce.join import join
from clipdr.reinforce.verify import verify


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`reinforcements` and `images`, the images of the second shard in two files of a folder."""
    (tmp_path / "reinforcements").mkdir()
    (tmp_path / "images/00000001").mkdir(parents=True)
    for shard, numbers in SHARDS.items():
        write_shard(tmp_path / "reinforcements" / shard, [published(n) for n in numbers])
    write_shard(tmp_path / "images/00000000.tar", [fetched(n) for n in reversed(SHARDS["00000000.tar"])])
    second = SHARDS["00000001.tar"]
    for part, numbers in enumerate((second[:3], second[3:])):
        write_shard(tmp_path / f"images/00000001/{part:05d}.tar", [fetched(n) for n in numbers])
    return tmp_path


def joined(tree: Path, captions: Path | None = None, **changes) -> dict:
    shutil.rmtree(tree / "store", ignore_errors=True)
    join(tree / "reinforcements", tree / "images", captions, SETTINGS | changes, tree / "store")
    return read_manifest(tree / "store")


def test_everything_that_fits_is_a_sound_dataset(tree: Path) -> None:
    manifest = joined(tree)
    assert (manifest["in"], manifest["samples"], manifest["skipped"]) == (12, 12, {})
    assert verify(tree / "store", [], 0.0) == []
    views = read_views(tree / "store", 16)
    assert views.uids == [uid(n) for n in range(12)] and views.img_NACSS.shape == (12, 2, 3, 16, 16)
    assert views.texts[7] == ["caption 7", "one 7", "two 7"]
    for members, number in zip(read_shard(tree / "store/00000000.tar"), SHARDS["00000000.tar"], strict=True):
        assert members["jpg"] == picture(number) and members["pth.gz"] == published(number)["pth.gz"]


def test_float32_of_the_first_release_is_read_too(tree: Path) -> None:
    write_shard(tree / "reinforcements/00000000.tar", [published(n, "float32") for n in range(5)])
    joined(tree)
    sample = decode(next(read_shard(tree / "store/00000000.tar")))
    assert sample.img_AE.dtype == torch.float32 and verify(tree / "store", [], 0.0) == []


def test_captions_may_stand_in_a_table(tree: Path) -> None:
    table = pd.DataFrame({"uid": [uid(n) for n in range(11)], "text": [f"alt text {n}" for n in range(11)]})
    table.to_parquet(tree / "captions.parquet")
    manifest = joined(tree, tree / "captions.parquet")
    assert manifest["skipped"] == {"there is no caption": 1} and manifest["samples"] == 11
    assert read_views(tree / "store", 16).texts[3][0] == "alt text 3"


def smaller(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((30, 20)).save(stream, "jpeg")
    return stream.getvalue()


FAULTS = {
    "there is no image": lambda sample: {k: v for k, v in sample.items() if k != "jpg"},
    "the image is damaged": lambda sample: sample | {"jpg": sample["jpg"][:200]},
    "the image was resized: a stored crop does not fit": lambda sample: sample | {"jpg": smaller(sample["jpg"])},
    "the image was changed: it has another sha256": lambda sample: sample | {"jpg": picture(77)},
    "there is no caption": lambda sample: sample | {"txt": b" "},
}


@pytest.mark.parametrize("why", FAULTS)
def test_what_does_not_fit_is_counted_and_listed(tree: Path, why: str) -> None:
    images = [fetched(n) for n in SHARDS["00000000.tar"]]
    images[2] = FAULTS[why](images[2])
    write_shard(tree / "images/00000000.tar", images)
    manifest = joined(tree)
    assert (manifest["in"], manifest["samples"], manifest["skipped"]) == (12, 11, {why: 1})
    assert pd.read_csv(tree / "store/skipped.csv", dtype=str).to_dict("records") == [
        {"shard": "00000000.tar", "uid": uid(2), "reason": why}
    ]
    assert uid(2) not in read_views(tree / "store", 16).uids and verify(tree / "store", [], 0.0) == []
    with pytest.raises(UserError, match=f"sample {uid(2)}: {why}; mend it, or set bad_samples to skip"):
        joined(tree, bad_samples="fail")
    assert not (tree / "store").exists()


def test_damaged_reinforcements_and_uids_that_stand_twice(tree: Path) -> None:
    samples = [published(n) for n in SHARDS["00000000.tar"]]
    samples[0].pop("syn.json")
    samples[1]["paug.json"] = b"{"
    write_shard(tree / "reinforcements/00000000.tar", [*samples[:4], samples[2], samples[4]])
    assert Counter(joined(tree)["skipped"]) == {
        "the reinforcements lack syn.json": 1,
        "the reinforcements are damaged": 1,
        "the uid stands twice": 1,
    }


def test_a_shard_without_any_image_leaves_none(tree: Path) -> None:
    (tree / "images/00000000.tar").unlink()
    manifest = joined(tree)
    assert list(manifest["shards"]) == ["00000001.tar"] and manifest["skipped"] == {"there is no image": 5}
    assert verify(tree / "store", [], 0.0) == []


def test_a_killed_join_goes_on_and_ends_the_same(tree: Path, monkeypatch) -> None:
    (tree / "images/00000001/00000.tar").unlink()
    joined(tree)
    whole = {path.name: path.read_bytes() for path in (tree / "store").iterdir()}
    write, written = stage.write_shard, []

    def once(path: Path, samples) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, samples)

    monkeypatch.setattr(stage, "write_shard", once)
    with pytest.raises(KeyboardInterrupt):
        joined(tree)
    monkeypatch.setattr(stage, "write_shard", lambda path, samples: (written.append(path.name), write(path, samples)))
    join(tree / "reinforcements", tree / "images", None, SETTINGS, tree / "store")
    assert written == ["00000000.tar.partial", "00000001.tar.partial"]
    assert {path.name: path.read_bytes() for path in (tree / "store").iterdir()} == whole


def test_a_damaged_file_of_images_is_named(tree: Path) -> None:
    (tree / "images/00000000.tar").write_bytes(b"nothing like a tar file")
    with pytest.raises(UserError, match=r"images/00000000.tar cannot be read .*fetch the images of 00000000.tar again"):
        joined(tree)
