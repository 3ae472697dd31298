"""A subset is a uniform sample that grows by adding, whatever the order; a pool is read as it was built."""

import io
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, chi2

from clipdr.chunks import chunk_names
from clipdr.data import subset
from clipdr.data.shards import read_shard, write_shard
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import sha256
from clipdr.zoo.data import pool_views


@pytest.fixture(scope="module")
def index():
    uids = [sha256(str(i).encode())[:32] for i in range(500)]
    return pd.DataFrame({"uid": uids, "shard": [f"{i // 100:05d}.tar" for i in range(500)], "caption": "x"})


@pytest.fixture
def sample(tmp_path_factory):
    """Rows of each chunk of a sample of an index."""

    def of(index: pd.DataFrame, size: int, seed: int, chunks: int = 1) -> list[pd.DataFrame]:
        folder = tmp_path_factory.mktemp("subset")
        index.to_parquet(folder / "index.parquet", index=False, row_group_size=70)
        subset.sample(folder / "index.parquet", size, seed, chunks, folder / "chunks")
        return [pd.read_parquet(folder / "chunks" / f"{name}.parquet") for name in chunk_names(chunks)]

    return of


def slow(index: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """The choice with all in memory: sort by hash, take the first, put them back in order."""
    rank = index["uid"].map(lambda uid: sha256(f"{seed}:{uid}".encode()))
    return index.loc[sorted(rank.sort_values().index[:size])].reset_index(drop=True)


@pytest.mark.parametrize("digits", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 2, 50, 499, 500])
def test_the_choice_is_the_one_that_sorting_all_would_make(index, sample, monkeypatch, digits, size):
    """Also where many hashes share the digits by which they are counted first."""
    monkeypatch.setattr(subset, "DIGITS", digits)
    monkeypatch.setattr(subset, "BATCH", 64)
    (chosen,) = sample(index, size, 3)
    pd.testing.assert_frame_equal(chosen, slow(index, size, 3))


def test_smaller_subsets_lie_inside_larger_ones(index, sample):
    sizes = [1, 10, 100, 499, 500]
    subsets = [set(sample(index, size, 3)[0]["uid"]) for size in sizes]
    assert [len(subset) for subset in subsets] == sizes
    assert all(small < large for small, large in zip(subsets, subsets[1:], strict=False))


@pytest.mark.parametrize("chunks", [2, 3, 5])
def test_chunks_are_runs_of_shards_that_make_up_the_whole(index, sample, chunks):
    parts = sample(index, 300, 0, chunks)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), sample(index, 300, 0)[0])
    runs = [sorted(set(part["shard"])) for part in parts]
    assert sum(runs, []) == sorted(set(index["shard"]))  # each in one chunk
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


def test_the_choice_does_not_depend_on_the_order_of_the_index(index, sample):
    for frame in (index, index.sample(frac=1, random_state=0)):
        parts = sample(frame, 50, 0, 2)
        assert set(parts[0]["uid"]) | set(parts[1]["uid"]) == set(slow(index, 50, 0)["uid"])


def test_every_pair_is_equally_likely(index, sample, monkeypatch):
    """Counts over 400 seeds against the binomial of a uniform choice of 100 in 500."""
    counts = np.zeros(500)
    monkeypatch.setattr(subset, "DIGITS", 2)
    for seed in range(400):
        counts[index["uid"].isin(sample(index, 100, seed)[0]["uid"])] += 1
    assert binom.ppf(1e-7, 400, 0.2) <= counts.min() and counts.max() <= binom.ppf(1 - 1e-7, 400, 0.2)
    statistic = ((counts - 80) ** 2 / (400 * 0.2 * 0.8)).sum()
    assert chi2.ppf(1e-4, 499) < statistic < chi2.ppf(1 - 1e-4, 499)


def test_seeds_choose_independently(index, sample):
    first, second = (set(sample(index, 100, seed)[0]["uid"]) for seed in (0, 1))
    assert 5 < len(first & second) < 40  # 20 on average


@pytest.mark.parametrize(
    ("size", "chunks", "message"),
    [
        (501, 1, "501.*500.*`size`"),
        (-5, 1, "a subset of -5 was asked for"),
        (5, 6, "6 chunks were asked of a pool of 5 shards; lower `chunks`"),
    ],
)
def test_what_a_pool_cannot_give(index, sample, size, chunks, message):
    with pytest.raises(UserError, match=message):
        sample(index, size, 0, chunks)


def changed(pool, tmp_path, change):
    """(folder, index) of the pool with the samples of its first shard passed through `change`."""
    folder = shutil.copytree(pool[0], tmp_path / "pool")
    write_shard(folder / "00000.tar", change(list(read_shard(folder / "00000.tar"))))
    return folder, pool[1]


FAULTS = {
    "lacks 1 samples of the index": lambda samples: samples[1:],
    "its image is not what the index says": lambda samples: [samples[0] | {"webp": samples[1]["webp"]}, *samples[1:]],
    "its caption is not what the index says": lambda samples: [samples[0] | {"txt": b"\xff"}, *samples[1:]],
    "its json is not what the index says": lambda samples: [samples[0] | {"json": b"[]"}, *samples[1:]],
}


@pytest.mark.parametrize("message", FAULTS)
@pytest.mark.parametrize("read", ["stages", "zoo"])
def test_a_pool_that_was_changed_is_noticed(pool, tmp_path, message, read):
    folder, index = changed(pool, tmp_path, FAULTS[message])
    with pytest.raises(UserError, match=f"00000.tar.* {message}.*; build the pool again"):
        if read == "zoo":
            pool_views(folder, {"views": 1, "image_size": 16, "crop_scale": [0.5, 1], "num_ops": 0, "seed": 0})
        else:
            list(subset_samples(folder, index))


def test_a_caption_that_was_taken_out_is_noticed(pool, tmp_path):
    folder, index = changed(
        pool, tmp_path, lambda samples: [{k: v for k, v in s.items() if k != "txt"} for s in samples]
    )
    with pytest.raises(UserError, match="its caption is not what the index says"):
        list(subset_samples(folder, index))


def test_samples_that_no_index_names_are_not_read(pool, tmp_path):
    other = list(read_shard(pool[0] / "00001.tar"))[0] | {"__key__": "f" * 32}
    folder, index = changed(pool, tmp_path, lambda samples: [samples[0], other, *samples[1:], samples[0]])
    assert [sample["__key__"] for sample in subset_samples(folder, index)] == list(index["uid"])


def test_a_pool_without_an_index(tmp_path):
    with pytest.raises(UserError, match="index.parquet is missing; build the pool first"):
        pool_views(tmp_path, {})


@pytest.mark.parametrize("name", ["../../../outside.txt", "/outside.txt", "a/../../outside.txt"])
def test_names_that_lead_out_of_a_folder_write_nothing(tmp_path, name):
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"text"))
    before = sorted(tmp_path.parent.iterdir())
    index = pd.DataFrame([{"uid": "a" * 32, "shard": "00000.tar", "sha256": "", "caption": ""}])
    with pytest.raises(UserError, match="lacks 1 samples of the index"):
        list(subset_samples(tmp_path, index))
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == ["00000.tar"]
        and sorted(tmp_path.parent.iterdir()) == before
    )
