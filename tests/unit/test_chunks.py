"""What is made in chunks is what one job would have made: the same bytes, under one manifest."""

import json

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from clipdr.chunks import batched, chunk_names, runs
from clipdr.data.manifest import merge, read_manifest
from clipdr.data.rows import convert
from clipdr.data.stream import ShardBatches
from clipdr.data.subset import sample
from clipdr.data.views import read_views
from clipdr.errors import UserError
from clipdr.models.load import load_model
from clipdr.reinforce.captions import caption
from clipdr.reinforce.embed import reinforce
from clipdr.reinforce.verify import verify

CAPTIONS = {"number": 2, "top_p": 0.9, "temperature": 1.0, "max_tokens": 11, "min_tokens": 2, "redraws": 1, "seed": 0}


def made(folder, pool, captioner, teachers, augmentation, chunks: int, size: int = 6):
    """Captions, reinforced shards and rows of the pool, as the rules make them."""
    sample(pool[0] / "index.parquet", size, 0, chunks, folder / "subset")
    settings = {"augmentation": augmentation, "teachers": ["small", "large"]}
    for name in chunk_names(chunks):
        subset, at = pd.read_parquet(folder / f"subset/{name}.parquet"), f"chunks/{name}"
        caption(pool[0], subset, captioner, CAPTIONS, folder / "captions" / at)
        reinforce(pool[0], subset, folder / "captions" / at, teachers, settings, folder / "reinforced" / at)
        convert(folder / "reinforced" / at, folder / "rows" / at)
    for stage in ("captions", "reinforced", "rows"):
        names = [folder / stage / "chunks" / name for name in chunk_names(chunks)]
        merge(names, folder / stage / "manifest.json")
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory, pool, captioner, teachers, augmentation):
    return made(tmp_path_factory.mktemp("once"), pool, captioner, teachers, augmentation, 1)


@pytest.fixture(scope="module")
def twice(tmp_path_factory, pool, captioner, teachers, augmentation):
    return made(tmp_path_factory.mktemp("twice"), pool, captioner, teachers, augmentation, 2)


@pytest.mark.parametrize("stage", ["captions", "reinforced", "rows"])
def test_shards_are_the_same_in_any_number_of_chunks(once, twice, stage):
    def files(folder):
        shards = json.loads((folder / stage / "manifest.json").read_text())["shards"]
        return [(shard.split("/")[-1], (folder / stage / shard).read_bytes()) for shard in shards]

    assert len(files(once)) == 2 and files(once) == files(twice)


@pytest.mark.parametrize("stage", ["captions", "reinforced", "rows"])
def test_the_manifest_of_the_whole_is_that_of_one_job(once, twice, stage):
    whole = json.loads((twice / stage / "manifest.json").read_text())
    one = json.loads((once / stage / "chunks/0-of-1/manifest.json").read_text())
    shards = whole.pop("shards")
    assert list(shards) == [f"chunks/{n}-of-2/{shard}" for n, shard in enumerate(one["shards"])]
    assert list(shards.values()) == list(one.pop("shards").values())
    assert whole == one


def test_readers_take_chunks_as_one_dataset(once, twice, tokenizer):
    assert verify(twice / "reinforced", [], 0.0) == []
    left, right = read_views(once / "reinforced", 32), read_views(twice / "reinforced", 32)
    assert left.uids == right.uids and left.texts == right.texts
    np.testing.assert_array_equal(left.img_NACSS, right.img_NACSS)
    tokenize = open_clip.tokenizer.HFTokenizer(str(tokenizer), context_length=12)
    batches = [
        next(ShardBatches(folder / "rows", 32, tokenize, ["real", "syn"], ["small"], 4, 0, 0, 2).batches(0))
        for folder in (once, twice)
    ]
    assert sorted(batches[0].uids) == sorted(set(batches[0].uids))
    assert set(batches[1].uids) <= set(left.uids) and len(set(batches[1].uids)) == 4


def test_a_chunk_may_have_nothing_chosen(tmp_path, pool, captioner, teachers, augmentation):
    made(tmp_path, pool, captioner, teachers, augmentation, 2, size=1)
    assert read_manifest(tmp_path / "reinforced")["samples"] == 1 and verify(tmp_path / "reinforced", [], 0.0) == []
    assert len(read_views(tmp_path / "reinforced", 32).uids) == 1
    assert read_manifest(tmp_path / "rows")["samples"] == 1


def test_counts_of_chunks_are_added(tmp_path):
    for n, skipped in enumerate([{"dead": 2}, {"dead": 1, "changed": 4}]):
        one = {
            "in": 10,
            "samples": 10 - sum(skipped.values()),
            "skipped": skipped,
            "shards": {"0.tar": 5},
            "teachers": [],
        }
        (tmp_path / f"chunks/{n}").mkdir(parents=True)
        (tmp_path / f"chunks/{n}/manifest.json").write_text(json.dumps(one))
    merge([tmp_path / "chunks/0", tmp_path / "chunks/1"], tmp_path / "manifest.json")
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "in": 20,
        "samples": 13,
        "skipped": {"changed": 4, "dead": 3},
        "shards": {"chunks/0/0.tar": 5, "chunks/1/0.tar": 5},
        "teachers": [],
    }


def test_chunks_that_were_made_otherwise_are_refused(once, twice, tmp_path):
    manifest = read_manifest(twice / "reinforced/chunks/1-of-2")
    manifest["teachers"][0]["logit_scale"] = 1.0
    other = tmp_path / "chunks/1-of-2"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text(json.dumps(manifest))
    first = tmp_path / "chunks/0-of-2"
    first.mkdir()
    (first / "manifest.json").write_bytes((twice / "reinforced/chunks/0-of-2/manifest.json").read_bytes())
    with pytest.raises(UserError, match="1-of-2/manifest.json has another 'teachers' than the chunks before it"):
        merge([first, other], tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()


def test_runs_are_as_equal_as_possible():
    for shards in range(1, 30):
        for number in range(1, shards + 1):
            names = [f"{n:05d}.tar" for n in range(shards)]
            found = runs(names, number)
            assert len(found) == number and sum(found, []) == names
            assert max(map(len, found)) - min(map(len, found)) <= 1
    assert chunk_names(1) == ["0-of-1"] and chunk_names(11)[9:] == ["09-of-11", "10-of-11"]
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_the_device_of_a_stage_must_be_there(teachers):
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device cuda was asked for, which this machine does not have"):
            load_model(teachers[0], "cuda")
