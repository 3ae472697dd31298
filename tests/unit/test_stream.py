"""Shards read as a stream against arrays in memory, against counting by hand, and against damage."""

import json
import shutil
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from clipdr.data import rows
from clipdr.data.augment import draw, replay
from clipdr.data.draws import First, draws, text_of, view_of
from clipdr.data.samples import decode_image
from clipdr.data.shards import read_shard, write_shard
from clipdr.data.stream import Order, ShardBatches
from clipdr.data.views import ViewBatches, load_views, materialise
from clipdr.errors import UserError
from clipdr.models.folder import load_tokenizer
from clipdr.reinforce import embed

NAMES = ["small", "large"]


@pytest.fixture(scope="module")
def tokenize(teachers):
    return load_tokenizer(teachers[0]).cut


def stream(rows_dir, tokenize, workers=0, buffer=2, batch_size=4, seed=0, kinds=("real", "syn"), **share):
    return ShardBatches(rows_dir, 32, tokenize, list(kinds), NAMES, batch_size, seed, workers, buffer, **share)


def equal(first, second) -> bool:
    """Whether two batches hold the same, to the bit."""
    tensors = [
        [*batch.images.values(), *batch.texts.values()]
        + [emb for teacher in batch.teachers.values() for emb in (*teacher.images.values(), *teacher.texts.values())]
        for batch in (first, second)
    ]
    scales = [{name: teacher.scale for name, teacher in batch.teachers.items()} for batch in (first, second)]
    return first.uids == second.uids and scales[0] == scales[1] and all(map(torch.equal, *tensors))


@pytest.mark.parametrize("sizes", [[3, 3], [5, 1, 4, 2, 7], [10]])
@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("buffer", [1, 3, 100])
def test_every_sample_of_an_epoch_is_given_once_whatever_the_number_of_readers(sizes, readers, buffer):
    order = Order({f"{n}.tar": size for n, size in enumerate(sizes)}, 0, readers, buffer)
    total, seen = sum(sizes), {epoch: [] for epoch in range(3)}
    for reader in range(readers):
        length = len(order.section(reader))
        assert abs(length - total / readers) < 1
        for epoch, block, places in islice(order.blocks(reader, 0), 3 * -(-length // buffer)):
            seen[epoch] += [block[place] for place in places]
    assert all(sorted(positions) == list(range(total)) for positions in seen.values())


@pytest.mark.parametrize("skip", range(14))
def test_skipping_goes_to_the_same_place_as_reading(skip):
    order = Order({"a": 4, "b": 1, "c": 2}, 3, 2, 2)

    def positions(skip):
        return [(epoch, block[p]) for epoch, block, places in islice(order.blocks(1, skip), 12) for p in places]

    assert positions(skip)[:8] == positions(0)[skip : skip + 8]


@pytest.mark.parametrize("workers, world", [(0, 1), (2, 1), (0, 2), (1, 2)])
def test_samples_of_an_epoch_are_seen_once_by_uid(rows_dir, pool, tokenize, workers, world):
    """Three epochs of six images, in batches of three for each process: whatever reads, each uid comes three times."""
    uids = []
    for rank in range(world):
        source = stream(rows_dir, tokenize, workers, batch_size=3 * world, rank=rank, world=world)
        batches = list(islice(source.batches(0), 6 // world))
        uids += [uid for batch in batches for uid in batch.uids]
        assert all(len(batch.uids) == 3 for batch in batches)
    assert sorted(uids) == sorted([*pool[1]["uid"]] * 3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kinds", [("real", "syn"), ("real-or-syn",)])
def test_stream_and_memory_give_the_same_batches_in_the_same_order(rows_dir, views_dir, tokenize, workers, kinds):
    source = stream(rows_dir, tokenize, workers, kinds=kinds)
    views = load_views(views_dir, NAMES)
    memory = ViewBatches(views, tokenize, list(kinds), 4, 0)
    for step, batch in enumerate(islice(source.batches(0), 7)):
        places = np.array([views.uids.index(uid) for uid in batch.uids])
        assert equal(batch, memory.batch(places, step))


@pytest.mark.parametrize("first", [First(1, 1), First(2), First(synthetic=1), First(3, 2), First(9, 9)])
def test_fewer_views_and_captions_are_the_first_ones_from_both_sources(rows_dir, views_dir, tokenize, first):
    """The whole data set against the same with all later views and captions cut away."""
    views = load_views(views_dir, NAMES)
    cut = replace(
        views,
        img_NACSS=views.img_NACSS[:, : first.views],
        texts=[texts[: None if first.synthetic is None else 1 + first.synthetic] for texts in views.texts],
    )
    wanted = ViewBatches(cut, tokenize, ["real", "syn"], 4, 0)
    memory = ViewBatches(views, tokenize, ["real", "syn"], 4, 0, first=first)
    for step, batch in enumerate(islice(stream(rows_dir, tokenize, first=first).batches(0), 5)):
        assert equal(next(memory.batches(step)), next(wanted.batches(step)))
        places = np.array([views.uids.index(uid) for uid in batch.uids])
        assert equal(batch, wanted.batch(places, step))


STUDENT = {"num_ops": 2, "magnitude": 9, "flip": 0.5, "erase": 0.5}


def test_what_students_alone_see_is_drawn_over_the_views(rows_dir, views_dir, tokenize):
    """By hand: the ops of the strong augmentation over the same batch without them; teachers' embeddings stay."""
    views = load_views(views_dir, NAMES)
    memory = ViewBatches(views, tokenize, ["real", "syn"], 4, 0, student=STUDENT)
    plain = stream(rows_dir, tokenize).batches(0)
    for step, batch in zip(range(3), stream(rows_dir, tokenize, student=STUDENT).batches(0), strict=False):
        bare = next(plain)
        for position, img_CSS in enumerate(bare.images["image"].numpy()):
            rng = np.random.default_rng([0, 4, step, position])
            _, ops = draw(rng, 32, 32, {**STUDENT, "crop_scale": [1, 1], "image_size": 32})
            seen = replay(Image.fromarray(img_CSS.transpose(1, 2, 0)), [[0, 0, 32, 32], ops], 32)
            assert np.array_equal(batch.images["image"][position].numpy().transpose(1, 2, 0), seen)
        assert not torch.equal(batch.images["image"], bare.images["image"])
        assert equal(replace(batch, images=bare.images), bare)
        assert equal(batch, memory.batch(np.array([views.uids.index(uid) for uid in batch.uids]), step))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_stream_goes_on_at_any_step(rows_dir, tokenize, workers, start):
    source = stream(rows_dir, tokenize, workers)
    whole = list(islice(source.batches(0), start + 3))
    rest = list(islice(source.batches(start), 3))
    assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("student", [None, STUDENT])
def test_memory_in_two_processes_holds_the_batch_of_one(views_dir, tokenize, student):
    views = load_views(views_dir, NAMES)
    read = (views, tokenize, ["real", "syn"], 4, 0)
    whole = ViewBatches(*read, student=student).batches(2)
    shares = [ViewBatches(*read, rank, 2, student=student).batches(2) for rank in (0, 1)]
    for _ in range(3):
        batch, *parts = (next(one) for one in (whole, *shares))
        assert batch.uids == parts[0].uids + parts[1].uids
        assert torch.equal(batch.images["image"], torch.cat([part.images["image"] for part in parts]))
        assert torch.equal(batch.texts["syn"], torch.cat([part.texts["syn"] for part in parts]))


def test_draws_are_uniform_over_views_and_captions():
    drawn = draws(0, 0, 6000)
    assert np.bincount(view_of(drawn, 3)) == pytest.approx([2000] * 3, rel=0.07)
    texts = np.full(6000, 4)
    assert np.bincount(text_of("syn", drawn, texts), minlength=4) == pytest.approx([0, 2000, 2000, 2000], rel=0.07)
    assert np.bincount(text_of("any", drawn, texts)) == pytest.approx([1500] * 4, rel=0.07)
    assert np.bincount(text_of("real-or-syn", drawn, texts)) == pytest.approx([3000, 1000, 1000, 1000], rel=0.1)
    assert not text_of("real", drawn, texts).any()
    assert (text_of("syn", drawn, np.full(6000, 2)) == 1).all()


def test_what_a_stream_lacks_is_refused_before_it_is_read(rows_dir, tokenize):
    with pytest.raises(UserError, match="no embeddings of teacher 'huge'; it has small, large"):
        ShardBatches(rows_dir, 32, tokenize, ["real"], ["huge"], 4, 0, 0, 2)
    with pytest.raises(UserError, match="has 2 shards, fewer than 2 processes with 2 workers each; lower"):
        stream(rows_dir, tokenize, workers=2, world=2)


def spoiled(sample: dict, **members) -> dict:
    return {**sample, **members}


def flipped(sample: dict) -> dict:
    data = bytearray(sample["webp"])
    data[len(data) // 2] ^= 1
    return spoiled(sample, webp=bytes(data))


def embedded(sample: dict, factor: float, width: slice = slice(None)) -> dict:
    import gzip
    import io

    emb = torch.load(io.BytesIO(gzip.decompress(sample["pth.gz"])), weights_only=True)
    emb["image_emb"] = (emb["image_emb"] * factor)[:, width]
    stream = io.BytesIO()
    torch.save(emb, stream)
    return spoiled(sample, **{"pth.gz": gzip.compress(stream.getvalue())})


def first(spoil) -> object:
    """The samples of a shard, the first of them spoiled."""
    return lambda samples: [spoil(samples[0]), *samples[1:]]


NO_VIEWS, NO_CAPTIONS = {"paug.json": b'{"param_aug": []}'}, {"syn.json": b'{"syn_text": []}'}
UNIT = "'small' are not L2-normalised"
DAMAGE = {
    "an image with one bit flipped": (first(flipped), "damaged"),
    "embeddings times 1000": (first(lambda s: embedded(s, 1000)), UNIT),
    "embeddings of zero": (first(lambda s: embedded(s, 0)), UNIT),
    "embeddings that are no numbers": (first(lambda s: embedded(s, torch.nan)), UNIT),
    "narrower embeddings": (first(lambda s: embedded(s, 1, slice(0, 30))), r"embeddings \[3, 30\], not \[3, 40\]"),
    "views emptied": (first(lambda s: spoiled(s, **NO_VIEWS)), "between 0 and 3 views"),
    "captions emptied": (first(lambda s: spoiled(s, **NO_CAPTIONS)), "between 0 and 2 synthetic captions"),
    "a sample removed": (lambda s: s[1:], "holds 2 samples .2 different ones., but the manifest says 3"),
    "a sample twice": (lambda s: [*s, s[0]], "holds . samples .* but the manifest says 3"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_samples_are_named_and_not_trained_on(what, reinforced, tokenize, tmp_path):
    folder = shutil.copytree(reinforced, tmp_path / "shards")
    spoil, says = DAMAGE[what]
    write_shard(folder / "00000.tar", spoil(list(read_shard(folder / "00000.tar"))))
    with pytest.raises(UserError, match=says):
        materialise(folder, 32, tmp_path / "views")
    with pytest.raises(UserError, match=None if what in ("views emptied", "captions emptied") else says):
        rows.convert(folder, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    "text, says", [(None, "is missing"), ('{"samples": 6, ', "cannot be read"), ("{}", "has no 'sa")]
)
def test_a_manifest_that_is_missing_or_cut(text, says, reinforced, tmp_path):
    folder = shutil.copytree(reinforced, tmp_path / "shards")
    (folder / "manifest.json").unlink()
    if text:
        (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=f"manifest.json {says}"):
        materialise(folder, 32, tmp_path / "views")


@pytest.mark.parametrize("scale", [None, 0.0, float("inf"), "100"])
def test_a_teacher_without_a_logit_scale(scale, reinforced, tmp_path):
    folder = shutil.copytree(reinforced, tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["teachers"][0]["logit_scale"] = scale
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="manifest.json: teacher 'small' has logit_scale"):
        materialise(folder, 32, tmp_path / "views")


def test_a_batch_has_only_the_teachers_that_are_read(rows_dir, tokenize):
    source = ShardBatches(rows_dir, 32, tokenize, ["real"], ["large"], 4, 0, 0, 2)
    batch = next(source.batches(0))
    assert list(batch.teachers) == ["large"] and batch.teachers["large"].images["image"].shape == (4, 16)


def test_a_store_without_embeddings_has_rows_of_nothing(pool, captions, augmentation, tokenize, tmp_path):
    embed.reinforce(*pool, captions, [], {"augmentation": augmentation, "teachers": []}, tmp_path / "shards")
    rows.convert(tmp_path / "shards", tmp_path / "rows")
    batch = next(ShardBatches(tmp_path / "rows", 32, tokenize, ["real", "syn"], [], 4, 0, 0, 2).batches(0))
    assert batch.images["image"].shape == (4, 3, 32, 32) and batch.teachers == {}


@pytest.mark.parametrize("cut", [slice(2, None), slice(0)])
def test_rows_that_are_cut_are_named(rows_dir, tokenize, tmp_path, cut):
    folder = shutil.copytree(rows_dir, tmp_path / "rows")
    samples = [spoiled(sample, rows=sample["rows"][cut]) for sample in read_shard(folder / "00000.tar")]
    write_shard(folder / "00000.tar", samples)
    with pytest.raises(UserError, match="sample .* is damaged .* bytes of embeddings for 3 views"):
        list(islice(stream(folder, tokenize).batches(0), 4))


def test_a_stream_wants_rows(reinforced, tokenize):
    with pytest.raises(UserError, match="is in the published form; bring it into rows with `python -m clipdr.data"):
        stream(reinforced, tokenize)


def test_fresh_views_are_drawn_for_their_place_in_the_step(pool, captions, teachers, augmentation, tokenize, tmp_path):
    fresh = {**augmentation, "views": 0}
    embed.reinforce(*pool, captions, teachers, {"augmentation": fresh, "teachers": NAMES}, tmp_path / "shards")
    rows.convert(tmp_path / "shards", tmp_path / "rows")

    def source(teachers=()):
        return ShardBatches(tmp_path / "rows", 32, tokenize, ["real"], list(teachers), 4, 0, 0, 2)

    images = {s["__key__"]: decode_image(s) for n in (0, 1) for s in read_shard(tmp_path / f"shards/0000{n}.tar")}
    for step, batch in enumerate(islice(source().batches(0), 3)):
        for position, (uid, view) in enumerate(zip(batch.uids, batch.images["image"], strict=True)):
            entry = draw(np.random.default_rng([0, 3, step, position]), *images[uid].size, fresh)
            assert np.array_equal(view, np.asarray(replay(images[uid], entry, 32)).transpose(2, 0, 1))
    assert equal(next(source().batches(2)), list(islice(source().batches(0), 3))[2])
    with pytest.raises(UserError, match="stores no views, so teachers have no embeddings"):
        source(NAMES)
