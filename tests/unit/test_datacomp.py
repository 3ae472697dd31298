"""A pool of published reinforcements: its chunks as one, and what is taken over from its samples."""

import json
from pathlib import Path

import pandas as pd
import pytest
from published import SETTINGS, SHARDS, fetched, picture, published, uid

from clipdr.chunks import chunk_names
from clipdr.data.manifest import merge, read_manifest
from clipdr.data.samples import as_json
from clipdr.data.shards import read_shard, write_shard
from clipdr.data.subset import sample, subset_samples
from clipdr.data.views import read_views
from clipdr.errors import UserError
from clipdr.files import sha256
from clipdr.pool.addresses import write_addresses
from clipdr.pool.conceptual import write_metadata
from clipdr.pool.gather import gather
from clipdr.reinforce.join import join
from clipdr.reinforce.stored import take_captions, take_reinforcements
from clipdr.reinforce.verify import verify

DEAD = {2, 5, 6}  # images that are not there any more


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """The pool of two chunks, of one published shard each."""
    for shard, numbers in SHARDS.items():
        chunk = f"{int(shard[:8])}-of-2"
        for kind in ("reinforcements", "images"):
            (tmp_path / kind / chunk).mkdir(parents=True)
        write_shard(tmp_path / "reinforcements" / chunk / shard, [published(n) for n in numbers])
        write_shard(tmp_path / "images" / chunk / shard, [fetched(n) for n in numbers if n not in DEAD])
        join(
            *(tmp_path / "reinforcements" / chunk, tmp_path / "images" / chunk, None, SETTINGS),
            tmp_path / "pool/chunks" / chunk,
        )
    gather([tmp_path / "pool/chunks/0-of-2", tmp_path / "pool/chunks/1-of-2"], tmp_path / "pool/shards")
    return tmp_path / "pool/shards"


def test_chunks_of_a_pool_are_read_as_one(pool: Path) -> None:
    index = pd.read_parquet(pool / "index.parquet")
    alive = [n for numbers in SHARDS.values() for n in numbers if n not in DEAD]
    assert list(index["uid"]) == [uid(n) for n in alive]
    assert list(index["caption"]) == [f"caption {n}" for n in alive] and index["label"].isna().all()
    samples = list(subset_samples(pool, index))  # each is what the index says
    assert [sample["jpg"] for sample in samples] == [picture(n) for n in alive]
    manifest = read_manifest(pool)
    assert (manifest["in"], manifest["samples"], manifest["skipped"]) == (12, 9, {"there is no image": 3})
    assert sorted(pd.read_csv(pool / "skipped.csv", dtype=str)["uid"]) == [uid(n) for n in sorted(DEAD)]
    assert verify(pool, [], 0.0) == []


def test_the_pool_can_be_moved(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").rename(tmp_path / "elsewhere")
    assert len(list(read_shard(tmp_path / "elsewhere/shards/00000000.tar"))) == 4


def test_a_chunk_without_any_image_is_left_out(tmp_path: Path, pool: Path) -> None:
    chunks = [tmp_path / f"pool/chunks/{name}" for name in ("0-of-2", "1-of-2")]
    (tmp_path / "none").mkdir()
    join(tmp_path / "reinforcements/0-of-2", tmp_path / "none", None, SETTINGS, tmp_path / "other/chunks/0-of-2")
    (tmp_path / "other/chunks/1-of-2").symlink_to(chunks[1])
    gather([tmp_path / "other/chunks" / name for name in ("0-of-2", "1-of-2")], tmp_path / "other/shards")
    assert set(pd.read_parquet(tmp_path / "other/shards/index.parquet")["shard"]) == {"00000001.tar"}
    assert read_manifest(tmp_path / "other/shards")["skipped"] == {"there is no image": 7}


def test_a_shard_that_stands_in_two_chunks(tmp_path: Path, pool: Path) -> None:
    first = tmp_path / "pool/chunks/0-of-2"
    with pytest.raises(UserError, match="00000000.tar stands in two chunks"):
        gather([first, first], tmp_path / "pool/twice")
    assert not (tmp_path / "pool/twice").exists()


@pytest.mark.parametrize("chunks", [1, 2])
def test_what_samples_bring_is_taken_over(pool: Path, tmp_path: Path, chunks: int) -> None:
    sample(pool / "index.parquet", 7, 0, chunks, tmp_path / "subset")
    settings = {key: SETTINGS[key] for key in ("teachers", "augmentation")}
    for name in chunk_names(chunks):
        rows = pd.read_parquet(tmp_path / f"subset/{name}.parquet")
        take_captions(pool, rows, {"number": 2}, tmp_path / "captions/chunks" / name)
        take_reinforcements(pool, rows, settings, tmp_path / "reinforced/chunks" / name)
    for stage in ("captions", "reinforced"):
        merge([tmp_path / stage / "chunks" / name for name in chunk_names(chunks)], tmp_path / stage / "manifest.json")
    chosen = pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / "subset").glob("*.parquet"))])
    assert len(chosen) == 7 and verify(tmp_path / "reinforced", [], 0.0) == []
    views = read_views(tmp_path / "reinforced", 16)
    assert views.uids == list(chosen["uid"])
    captions = [pd.read_parquet(path) for path in sorted((tmp_path / "captions").rglob("*.parquet"))]
    for row, texts in zip(pd.concat(captions).itertuples(), views.texts, strict=True):
        number = int(row.uid, 16)
        assert list(row.syn) == texts[1:] == [f"one {number}", f"two {number}"]
    for shard in read_manifest(tmp_path / "reinforced")["shards"]:
        for members in read_shard(tmp_path / "reinforced" / shard):
            assert members["pth.gz"] == published(int(members["__key__"], 16))["pth.gz"]


def test_another_number_of_captions_than_the_scale_says(pool: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(pool / "index.parquet")
    with pytest.raises(UserError, match=f"sample {uid(0)} has 2 synthetic captions, not 5; set captions.number to"):
        take_captions(pool, rows, {"number": 5}, tmp_path / "captions")
    assert not (tmp_path / "captions").exists()


def test_embeddings_of_other_teachers_than_the_scale_says(pool: Path, tmp_path: Path) -> None:
    rows, settings = pd.read_parquet(pool / "index.parquet"), {"augmentation": SETTINGS["augmentation"]}
    teachers = [SETTINGS["teachers"][0] | {"width": 768}]
    with pytest.raises(UserError, match=r"has image embeddings \[2, 12\], not \[2, 768\]"):
        take_reinforcements(pool, rows, settings | {"teachers": teachers}, tmp_path / "reinforced")


def test_a_pool_of_fewer_pairs_may_be_taken_whole(pool: Path, tmp_path: Path) -> None:
    sample(pool / "index.parquet", 12, 0, 1, tmp_path / "subset", at_most=True)
    assert len(pd.read_parquet(tmp_path / "subset/0-of-1.parquet")) == 9


def test_a_sample_that_was_changed_after_the_join_is_noticed(pool: Path, tmp_path: Path) -> None:
    shard = pool.parent / "chunks/0-of-2/00000000.tar"
    samples = list(read_shard(shard))
    samples[0]["json"] = as_json(json.loads(samples[0]["json"]) | {"sha256": "0" * 64})
    write_shard(shard, samples)
    rows, settings = (
        pd.read_parquet(pool / "index.parquet"),
        {key: SETTINGS[key] for key in ("teachers", "augmentation")},
    )
    with pytest.raises(UserError, match="the image is not the one whose sha256 was stored"):
        take_reinforcements(pool, rows, settings, tmp_path / "reinforced")


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """DataComp's own tables, of files of different lengths."""
    (tmp_path / "metadata").mkdir()
    for name, numbers in {"a": range(5), "b": range(5, 6), "c": range(6, 12)}.items():
        table = pd.DataFrame({"uid": [uid(n) for n in numbers], "text": [f"caption {n}" for n in numbers], "more": 0})
        table["url"] = [f"http://localhost/{n}.jpg" for n in numbers]
        table["sha256"] = [sha256(picture(n)) for n in numbers]
        table.to_parquet(tmp_path / f"metadata/{name}.parquet")
    return tmp_path / "metadata"


@pytest.mark.parametrize(("chunks", "shard_size"), [(1, 12), (2, 4), (3, 5), (4, 3)])
def test_every_line_of_the_metadata_is_in_one_shard(
    metadata: Path, tmp_path: Path, chunks: int, shard_size: int
) -> None:
    settings = {"captions": str(metadata), "shard_size": shard_size, "chunks": chunks}
    for name in chunk_names(chunks):
        write_addresses(settings, name, tmp_path / "addresses" / name)
    shards = sorted((tmp_path / "addresses").rglob("*.tar"), key=lambda path: path.name)
    samples = [list(read_shard(shard)) for shard in shards]
    assert [len(shard) for shard in samples] == [min(shard_size, 12 - n) for n in range(0, 12, shard_size)]
    flat = [sample for shard in samples for sample in shard]
    assert [sample["__key__"] for sample in flat] == [uid(n) for n in range(12)]
    assert flat[7]["url.txt"] == b"http://localhost/7.jpg"
    assert json.loads(flat[7]["json"]) == {"uid": uid(7), "sha256": sha256(picture(7))}


def test_addresses_and_images_make_a_pool_without_reinforcements(metadata: Path, tmp_path: Path) -> None:
    write_addresses({"captions": str(metadata)}, "0-of-1", tmp_path / "addresses")
    (tmp_path / "images").mkdir()
    images = [fetched(n) for n in range(12) if n not in DEAD]
    images[0]["jpg"] = picture(50)
    write_shard(tmp_path / "images/00000000.tar", images)
    join(tmp_path / "addresses", tmp_path / "images", None, {"bad_samples": "skip"}, tmp_path / "pool/chunks/0-of-1")
    gather([tmp_path / "pool/chunks/0-of-1"], tmp_path / "pool/shards")
    index = pd.read_parquet(tmp_path / "pool/shards/index.parquet")
    assert list(index["uid"]) == [uid(n) for n in range(1, 12) if n not in DEAD]
    samples = list(subset_samples(tmp_path / "pool/shards", index))
    assert all(sample.keys() == {"__key__", "jpg", "txt", "json"} for sample in samples)
    assert read_manifest(tmp_path / "pool/shards")["skipped"] == {
        "the image was changed: it has another sha256": 1,
        "there is no image": 3,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": 2}, "pool.chunks is 2, but .*metadata has 1 shards of 10000 lines; lower it"),
        ({"captions": "none.parquet"}, "pool.captions: none.parquet cannot be read"),
    ],
)
def test_metadata_that_do_not_fit_are_named(metadata: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_addresses({"captions": str(metadata)} | changes, "0-of-1", tmp_path / "addresses")


def test_conceptual_captions_become_metadata(tmp_path: Path, caplog) -> None:
    """Columns in either order; quotes are text; what is no pair is counted, and what stands twice counts once."""
    three, twelve, output = tmp_path / "cc3m.tsv", tmp_path / "cc12m.tsv", tmp_path / "new/pairs.parquet"
    three.write_text('a "quoted  cat\thttp://one.org/1.jpg\n\thttp://one.org/2.jpg\nno address\tat all\n')
    lines = ["https://two.org/3.jpg\ta dog", "http://one.org/1.jpg\tanother text", "https://two.org/4.jpg\ta\tb"]
    twelve.write_text("\n".join([*lines, "https://two.org/5.jpg\tein süßer Vogel"]))
    with caplog.at_level("INFO"):
        write_metadata([three, twelve], output)
    found = pd.read_parquet(output)
    expected = {
        "http://one.org/1.jpg": 'a "quoted cat',
        "https://two.org/3.jpg": "a dog",
        "https://two.org/5.jpg": "ein süßer Vogel",
    }
    assert dict(zip(found["url"], found["text"], strict=True)) == expected
    assert list(found["uid"]) == sorted(sha256(url.encode())[:32] for url in expected)
    assert "cc3m.tsv: 2 lines left out" in caplog.text and "cc12m.tsv: 1 lines left out" in caplog.text
    assert "1 lines left out: the address stands twice" in caplog.text
    three.write_text("nothing\there\n")
    with pytest.raises(UserError, match="cc3m.tsv has no line of an address, a tab and a caption"):
        write_metadata([three], output)


def test_metadata_without_hashes_make_a_pool(metadata: Path, tmp_path: Path) -> None:
    """Images are taken as they came, and the pool says what they are; of a published shard a missing hash is damage."""
    for path in metadata.glob("*.parquet"):
        pd.read_parquet(path).drop(columns="sha256").to_parquet(path)
    write_addresses({"captions": str(metadata)}, "0-of-1", tmp_path / "addresses")
    (tmp_path / "images").mkdir()
    write_shard(tmp_path / "images/00000000.tar", [fetched(n) for n in range(12)])
    join(tmp_path / "addresses", tmp_path / "images", None, {"bad_samples": "skip"}, tmp_path / "pool")
    index = pd.read_parquet(tmp_path / "pool/index.parquet")
    assert list(index["sha256"]) == [sha256(picture(n)) for n in range(12)]
    table = pd.read_parquet(metadata / "a.parquet").assign(sha256=None)
    table.to_parquet(metadata / "a.parquet")
    write_addresses({"captions": str(metadata / "a.parquet")}, "0-of-1", tmp_path / "null")
    with pytest.raises(UserError, match="the image was changed: it has another sha256"):  # one that is empty fits none
        join(tmp_path / "null", tmp_path / "images", None, {"bad_samples": "fail"}, tmp_path / "none")
    bare = published(3)
    bare["json"] = as_json({"uid": uid(3)})
    (tmp_path / "bare").mkdir()
    write_shard(tmp_path / "bare/00000000.tar", [bare])
    with pytest.raises(UserError, match="the reinforcements are damaged"):
        join(tmp_path / "bare", tmp_path / "images", None, SETTINGS | {"bad_samples": "fail"}, tmp_path / "other")
