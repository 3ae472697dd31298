"""Materialised views against the shards they come from, and against the teachers themselves; resuming after a kill."""

import json
import shutil

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from clipdr.data.augment import draw, replay
from clipdr.data.samples import decode, decode_image
from clipdr.data.shards import read_shard, write_shard
from clipdr.data.views import TokenTable, load_views, materialise
from clipdr.errors import UserError
from clipdr.reinforce import embed

NAMES = ["small", "large"]


@pytest.fixture(scope="module")
def settings(augmentation):
    return {"augmentation": augmentation, "teachers": NAMES}


@pytest.fixture(scope="module")
def members(reinforced):
    return [sample for shard in ("00000.tar", "00001.tar") for sample in read_shard(reinforced / shard)]


@pytest.fixture(scope="module")
def samples(members):
    return [decode(sample) for sample in members]


@pytest.fixture(scope="module")
def views(views_dir):
    return load_views(views_dir, NAMES)


def test_reinforced_samples_are_the_pools(samples, members, pool, captions, augmentation):
    tables = [pd.read_parquet(path) for path in sorted(captions.glob("*.parquet"))]
    synthetic = pd.concat(tables).set_index("uid")["syn"]
    index = pool[1].set_index("uid")
    assert [sample.uid for sample in samples] == list(index.index)
    originals = {s["__key__"]: s for shard in ("00000.tar", "00001.tar") for s in read_shard(pool[0] / shard)}
    for sample, stored in zip(samples, members, strict=True):
        image = decode_image(stored)
        assert sample.caption == index.caption[sample.uid]
        assert sample.synthetic == list(synthetic[sample.uid])
        np.testing.assert_array_equal(np.asarray(image), np.asarray(decode_image(originals[sample.uid])))
        rng = np.random.default_rng([augmentation["seed"], int(sample.uid[:8], 16)])
        assert sample.augmentations == [draw(rng, *image.size, augmentation) for _ in range(3)]
    assert len({json.dumps(sample.augmentations) for sample in samples}) == 6  # no two images share their draws


def test_manifest_says_what_the_shards_hold(reinforced, augmentation):
    manifest = json.loads((reinforced / "manifest.json").read_text())
    assert manifest["samples"] == 6 and manifest["shards"] == {"00000.tar": 3, "00001.tar": 3}
    assert manifest["augmentation"] == augmentation
    assert [(t["name"], t["width"]) for t in manifest["teachers"]] == [("small", 24), ("large", 16)]
    assert [t["logit_scale"] for t in manifest["teachers"]] == pytest.approx(np.exp([3.0, 4.0]))
    assert {path.name for path in reinforced.iterdir()} == {"00000.tar", "00001.tar", "manifest.json", ".token"}


def test_materialised_views_equal_replaying_the_shards(views, samples, members):
    assert views.img_NACSS.shape == (6, 3, 3, 32, 32) and views.img_NACSS.dtype == np.uint8
    for image, sample, stored in zip(views.img_NACSS, samples, members, strict=True):
        for view, entry in zip(image, sample.augmentations, strict=True):
            np.testing.assert_array_equal(view, np.asarray(replay(decode_image(stored), entry, 32)).transpose(2, 0, 1))
    assert views.texts == [[sample.caption, *sample.synthetic] for sample in samples]


def test_materialised_embeddings_are_the_shards_slices(views, samples):
    for i, sample in enumerate(samples):
        img = np.concatenate([views.teachers[name][0][i] for name in NAMES], axis=-1)
        txt = np.concatenate([views.teachers[name][1][i] for name in NAMES], axis=-1)
        np.testing.assert_array_equal(img, sample.img_AE.float().numpy())
        np.testing.assert_array_equal(txt, sample.txt_TE.float().numpy())


@pytest.mark.parametrize("number, name", enumerate(NAMES))
def test_embeddings_are_the_teachers_of_the_stored_views(number, name, views, teachers):
    """With open_clip alone: real caption in column 0, inputs normalised, resized where the teacher's side differs."""
    model = open_clip.create_model(f"local-dir:{teachers[number]}").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{teachers[number]}")
    config = json.loads((teachers[number] / "open_clip_config.json").read_text())
    mean, std = (np.array(config["preprocess_cfg"][key])[:, None, None] for key in ("mean", "std"))
    img_NAE, txt_NTE, scale = views.teachers[name]
    assert scale == pytest.approx(model.logit_scale.exp().item())
    assert img_NAE.shape == (6, 3, config["model_cfg"]["embed_dim"]) and txt_NTE.shape[:2] == (6, 3)
    for i in range(6):
        img = torch.tensor((views.img_NACSS[i] / 255 - mean) / std).float()
        side = config["model_cfg"]["vision_cfg"]["image_size"]
        if side != 32:
            img = resize(img, [side, side], InterpolationMode.BILINEAR, antialias=True)
        with torch.no_grad():
            expected_img, expected_txt = model.encode_image(img), model.encode_text(tokenize(views.texts[i]))
        for mine, theirs in ((img_NAE[i], expected_img), (txt_NTE[i], expected_txt)):
            theirs = (theirs / theirs.norm(dim=1, keepdim=True)).numpy()
            np.testing.assert_allclose(mine, theirs, rtol=2**-8, atol=1e-6)  # bf16 keeps eight significant bits


def test_every_slice_has_unit_norm(views):
    for img_NAE, txt_NTE, _ in views.teachers.values():
        for emb in (img_NAE, txt_NTE):
            np.testing.assert_allclose(np.linalg.norm(emb, axis=-1), 1, rtol=2**-8)


def test_token_table_equals_tokenising_the_text(tokenizer):
    tokenize = open_clip.tokenizer.HFTokenizer(str(tokenizer), context_length=12)
    texts = [["red apple", "an apple"], ["owl"], ["old tram", "a tram", "tram, tram"]]  # rows of different lengths
    table = TokenTable(tokenize, texts)
    assert list(table.counts) == [2, 1, 3]
    rows, columns = np.array([2, 0, 1, 2, 0, 2]), np.array([1, 0, 0, 2, 1, 0])
    expected = tokenize([texts[row][column] for row, column in zip(rows, columns, strict=True)])
    assert torch.equal(table.pick(rows, columns), expected)


def test_a_teacher_that_was_not_stored(views_dir):
    assert load_views(views_dir, []).teachers == {}
    with pytest.raises(UserError, match="huge.*small"):
        load_views(views_dir, ["small", "huge"])


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_killed_reinforcement_goes_on_where_it_was(
    reinforced, pool, captions, teachers, settings, tmp_path, monkeypatch
):
    written, write = [], embed.write_shard

    def killed_at_the_second(path, samples):
        written.append(path.name)
        if len(written) == 2:
            path.write_bytes(b"half a tar")
            raise KeyboardInterrupt
        write(path, samples)

    monkeypatch.setattr(embed, "write_shard", killed_at_the_second)
    arguments = (*pool, captions, teachers, settings, tmp_path / "all")
    with pytest.raises(KeyboardInterrupt):
        embed.reinforce(*arguments)
    assert not (tmp_path / "all").exists()
    embed.reinforce(*arguments)
    assert written == ["00000.tar.partial", "00001.tar.partial", "00001.tar.partial"]
    assert _bytes(tmp_path / "all") == _bytes(reinforced)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


@pytest.mark.parametrize("what", ["settings", "captions", "teachers", "pool"])
def test_a_killed_reinforcement_starts_again_when_its_inputs_changed(
    what, reinforced, pool, captions, teachers, settings, tmp_path, monkeypatch
):
    write = embed.write_shard
    folder, index = pool
    before = {"pool": folder, "subset": index, "captions": captions, "teachers": teachers, "settings": settings}
    if what == "settings":
        before["settings"] = {**settings, "augmentation": {**settings["augmentation"], "magnitude": 5}}
    elif what == "captions":
        before["captions"] = shutil.copytree(captions, tmp_path / "other")
        (tmp_path / "other/manifest.json").write_text('{"samples": 6}')
        table = pd.read_parquet(captions / "00000.parquet")
        table.assign(syn=[["x", "y"]] * 3).to_parquet(tmp_path / "other/00000.parquet")
    elif what == "teachers":
        before["teachers"] = teachers[::-1]
    else:  # the pool was drawn anew in other colours under the same uids
        shard = list(read_shard(folder / "00000.tar"))
        write(tmp_path / "00000.tar", [{**sample, "webp": shard[0]["webp"]} for sample in shard])
        before |= {"pool": tmp_path, "subset": index.assign(sha256=[index["sha256"][0]] * 3 + [*index["sha256"][3:]])}

    def killed_after_the_first(path, samples):
        if path.name.startswith("00001"):
            raise KeyboardInterrupt
        write(path, samples)

    monkeypatch.setattr(embed, "write_shard", killed_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        embed.reinforce(**before, output=tmp_path / "all")
    monkeypatch.undo()
    embed.reinforce(folder, index, captions, teachers, settings, tmp_path / "all")
    assert _bytes(tmp_path / "all") == _bytes(reinforced)


def test_a_subset_holds_the_chosen_samples_only(pool, captions, teachers, settings, reinforced, tmp_path):
    chosen = pool[1].iloc[[1, 4]]
    embed.reinforce(pool[0], chosen, captions, teachers, settings, tmp_path / "two")
    materialise(tmp_path / "two", 32, tmp_path / "views")
    assert [row[0] for row in load_views(tmp_path / "views", []).texts] == list(chosen["caption"])
    whole = {s["__key__"]: s for shard in ("00000.tar", "00001.tar") for s in read_shard(reinforced / shard)}
    for shard in ("00000.tar", "00001.tar"):
        for sample in read_shard(tmp_path / "two" / shard):
            assert sample == whole[sample["__key__"]]  # draws belong to the image, not to its place


def test_a_sample_the_pool_lacks(pool, captions, teachers, settings, tmp_path):
    missing = pool[1]["uid"][0]
    (tmp_path / "pool").mkdir()
    for shard in ("00000.tar", "00001.tar"):
        write_shard(tmp_path / "pool" / shard, [s for s in read_shard(pool[0] / shard) if s["__key__"] != missing])
    with pytest.raises(UserError, match=f"00000.tar lacks 1 samples.*{missing}"):
        embed.reinforce(tmp_path / "pool", pool[1], captions, teachers, settings, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_sample_without_synthetic_captions(pool, captions, teachers, settings, tmp_path):
    few = shutil.copytree(captions, tmp_path / "few")
    pd.read_parquet(captions / "00000.parquet").iloc[1:].to_parquet(few / "00000.parquet")
    with pytest.raises(UserError, match="few/00000.parquet lacks 1 samples of the subset, first " + pool[1]["uid"][0]):
        embed.reinforce(*pool, few, teachers, settings, tmp_path / "all")
