"""The DataCompDR sample layout and the shards: what is written is read again, and damage is named."""

import gzip
import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from clipdr.data.samples import PRECISIONS, check_image, decode, decode_image, encode
from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError
from clipdr.files import sha256

UID = "0a" * 16
ENTRIES = [[[3, 4, 20, 21], [[6, 0.27], [11, 178.5]]], [[0, 0, 32, 30], [[0, 0.0], [2, -0.09]]]]
SYNTHETIC = ["a red apple", "ein grüner Apfel 🍏"]


def _image(extension: str = "webp") -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (33, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, extension, **({"lossless": True} if extension == "webp" else {}))
    return stream.getvalue()


def _pool_sample(extension: str = "webp") -> dict:
    image = _image({"jpg": "jpeg"}.get(extension, extension))
    details = {"uid": UID, "sha256": sha256(image), "label": "apple", "texts": ["apple"]}
    return {
        "__key__": UID,
        extension: image,
        "txt": "äpple, fruit".encode(),
        "json": json.dumps(details).encode(),
    }


def _embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, generator=random), torch.randn(3, 5, generator=random)


@pytest.fixture()
def sample() -> dict:
    return encode(_pool_sample(), SYNTHETIC, ENTRIES, *_embeddings())


@pytest.mark.parametrize("extension", ["webp", "jpg", "png"])
def test_round_trip(extension):
    pool_sample, (img, txt) = _pool_sample(extension), _embeddings()
    members = encode(pool_sample, SYNTHETIC, ENTRIES, img, txt)
    found = decode(members)
    assert (found.uid, found.caption, found.synthetic) == (UID, "äpple, fruit", SYNTHETIC)
    assert found.augmentations == ENTRIES
    pixels = np.asarray(Image.open(io.BytesIO(pool_sample[extension])).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode_image(members)), pixels)
    for mine, given in ((found.img_AE, img), (found.txt_TE, txt)):
        assert mine.dtype == torch.bfloat16
        assert torch.equal(mine, given.to(torch.bfloat16))


def test_float32_is_kept_as_it_is():
    pool_sample, (img, txt) = _pool_sample("webp"), _embeddings()
    members = encode(pool_sample, SYNTHETIC, ENTRIES, img, txt, "float32")
    found = decode(members)
    assert torch.equal(found.img_AE, img) and torch.equal(found.txt_TE, txt)
    published = np.load(io.BytesIO(members["npz"]))  # the members of apple/DataCompDR-12M
    assert {name: published[name].dtype for name in published} == {"image_emb": np.float32, "text_emb": np.float32}


def test_int8_is_off_by_half_a_step_at_most():
    pool_sample, (img, txt) = _pool_sample("webp"), _embeddings()
    members = encode(pool_sample, SYNTHETIC, ENTRIES, img, txt, "int8")
    found = decode(members)
    for mine, given in ((found.img_AE, img), (found.txt_TE, txt)):
        step = given.abs().amax(dim=1, keepdim=True) / 127
        assert mine.dtype == torch.float32
        assert ((mine - given).abs() <= step / 2 + 1e-7).all() and not torch.equal(mine, given)


def test_int8_takes_half_of_bfloat16_and_a_quarter_of_float32():
    img, txt = torch.randn(30, 768), torch.randn(6, 768)
    sizes = {
        precision: sum(map(len, PRECISIONS[precision](img, txt).values()))
        for precision in ("float32", "bfloat16", "int8")
    }
    assert sizes["float32"] / 4 == pytest.approx(sizes["int8"], rel=0.06)
    assert sizes["bfloat16"] / 2 < sizes["int8"] * 1.02


@pytest.mark.parametrize("precision", ["bfloat16", "float32", "int8"])
def test_no_views_and_no_teachers_are_stored_as_nothing(precision):
    members = encode(_pool_sample("webp"), SYNTHETIC, [], torch.zeros(0, 8), torch.zeros(1, 0), precision)
    found = decode(members)
    assert tuple(found.img_AE.shape) == (0, 8) and tuple(found.txt_TE.shape) == (1, 0)


def test_an_npz_that_holds_a_pickle_is_refused(sample):
    stream = io.BytesIO()
    np.savez(stream, image_emb=np.array([print], dtype=object), text_emb=np.zeros((2, 4), np.float32))
    with pytest.raises(UserError, match=f"{UID} is damaged .*allow_pickle=False"):
        decode({key: value for key, value in sample.items() if key != "pth.gz"} | {"npz": stream.getvalue()})


def test_members_are_the_published_layouts(sample, tmp_path):
    write_shard(tmp_path / "0.tar", [sample])
    with tarfile.open(tmp_path / "0.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    assert members.keys() == {f"{UID}.{name}" for name in ("webp", "txt", "syn.json", "paug.json", "pth.gz", "json")}
    assert json.loads(members[f"{UID}.syn.json"]) == {"syn_text": SYNTHETIC}
    assert json.loads(members[f"{UID}.paug.json"]) == {"param_aug": ENTRIES}
    assert json.loads(members[f"{UID}.json"]) == {"uid": UID, "sha256": sha256(members[f"{UID}.webp"])}
    assert members[f"{UID}.webp"] == _pool_sample()["webp"] and members[f"{UID}.txt"] == _pool_sample()["txt"]
    emb = torch.load(io.BytesIO(gzip.decompress(members[f"{UID}.pth.gz"])), weights_only=True)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in emb.items()} == {
        "image_emb": (torch.bfloat16, (2, 5)),
        "text_emb": (torch.bfloat16, (3, 5)),
    }


def test_bytes_depend_on_the_content_only(sample, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert encode(_pool_sample(), SYNTHETIC, ENTRIES, *_embeddings()) == sample


def test_param_aug_may_be_a_json_string(sample):
    """As the hub's viewer and `datasets` deliver it."""
    sample["paug.json"] = json.dumps({"param_aug": json.dumps(ENTRIES)}).encode()
    assert decode(sample).augmentations == ENTRIES


def _pth(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return gzip.compress(stream.getvalue())


DAMAGE = {
    "no embeddings": lambda s: s.pop("pth.gz"),
    "no image": lambda s: s.pop("webp"),
    "no caption": lambda s: s.pop("txt"),
    "no augmentations": lambda s: s.pop("paug.json"),
    "cut image": lambda s: s.update(webp=s["webp"][: len(s["webp"]) // 2]),
    "no image at all": lambda s: s.update(webp=b"<html>not found</html>"),
    "cut gzip": lambda s: s.update({"pth.gz": s["pth.gz"][:-30]}),
    "changed gzip": lambda s: s.update({"pth.gz": s["pth.gz"][:60] + b"\xff\x00\xff\x00" + s["pth.gz"][64:]}),
    "no gzip": lambda s: s.update({"pth.gz": b"plain"}),
    "gzip of something else": lambda s: s.update({"pth.gz": gzip.compress(b"plain")}),
    "cut torch file": lambda s: s.update({"pth.gz": gzip.compress(gzip.decompress(s["pth.gz"])[:-100])}),
    "no text_emb": lambda s: s.update({"pth.gz": _pth({"image_emb": torch.zeros(1)})}),
    "a list of embeddings": lambda s: s.update({"pth.gz": _pth([torch.zeros(1)])}),
    "cut JSON": lambda s: s.update({"syn.json": s["syn.json"][:-3]}),
    "other JSON": lambda s: s.update({"syn.json": b"[]"}),
    "cut string of JSON": lambda s: s.update({"paug.json": b'{"param_aug": "[[1, 2"}'}),
    "caption not UTF-8": lambda s: s.update(txt=b"\xff\xfe"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_names_the_sample(sample, kind):
    DAMAGE[kind](sample)
    with pytest.raises(UserError, match=UID) as error:
        decode(sample)
        check_image(sample)
    assert "\n" not in str(error.value)


class _Attack:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_code_in_a_pickle_is_refused(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (_pth({"image_emb": _Attack(), "text_emb": torch.zeros(1)}), gzip.compress(pickle.dumps(_Attack()))):
        sample["pth.gz"] = data
        with pytest.raises(UserError, match=UID):
            decode(sample)
    assert not list(tmp_path.iterdir())


def _samples() -> list[dict]:
    return [{"__key__": f"k{i}", "webp": bytes([i + 1]) * (700 * i), "syn.json": b"{}"} for i in range(4)]


def test_shards_round_trip(tmp_path):
    write_shard(tmp_path / "0.tar", _samples())
    assert list(read_shard(tmp_path / "0.tar")) == _samples()
    write_shard(tmp_path / "empty.tar", [])
    assert list(read_shard(tmp_path / "empty.tar")) == []


def test_shards_of_identical_samples_are_identical(tmp_path, monkeypatch):
    write_shard(tmp_path / "0.tar", _samples())
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setenv("USER", "somebody")
    (tmp_path / "elsewhere").mkdir()
    write_shard(tmp_path / "elsewhere" / "1.tar", iter(_samples()))
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "elsewhere" / "1.tar").read_bytes()


def test_missing_shard(tmp_path):
    with pytest.raises(UserError, match="00007.tar is missing"):
        list(read_shard(tmp_path / "00007.tar"))


def test_every_cut_that_loses_a_sample_is_noticed(tmp_path):
    """Also one between two members, where the rest still reads as a whole tar file."""
    path = tmp_path / "0.tar"
    write_shard(path, _samples())
    data = path.read_bytes()
    end = max(i for i, byte in enumerate(data) if byte)
    for length in [0, 1, 100, *range(512, end, 256)]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="0.tar"):
            list(read_shard(path))


def test_damaged_shard(tmp_path):
    path = tmp_path / "0.tar"
    write_shard(path, _samples())
    data = bytearray(path.read_bytes())
    data[5] ^= 0xFF  # in the first header: its checksum fails
    for content in (bytes(data), b"<html>not found</html>" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match="0.tar"):
            list(read_shard(path))
