"""Rows against the published form that they are made from, and what is noticed while they are made."""

import shutil

import numpy as np
import pytest
import torch

from clipdr.data import rows
from clipdr.data.rows import read_row
from clipdr.data.samples import decode, decode_image
from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError


def test_rows_hold_what_the_published_form_holds(reinforced, rows_dir):
    for shard in ("00000.tar", "00001.tar"):
        for published, members in zip(read_shard(reinforced / shard), read_shard(rows_dir / shard), strict=True):
            sample, row = decode(published), read_row(members, 24 + 16, torch.bfloat16)
            assert row.texts == [sample.caption, *sample.synthetic] and row.augmentations == sample.augmentations
            assert np.array_equal(row.image, decode_image(published))
            assert torch.equal(torch.stack([row.view(a) for a in range(3)]), sample.img_AE)
            assert torch.equal(torch.stack([row.text(t) for t in range(3)]), sample.txt_TE)
            assert "pth.gz" not in members and published["json"] == members["json"]


def stopped_after_one(monkeypatch, store, output) -> list[str]:
    """A conversion that ends at its second shard; the files that it wrote."""
    write, written = rows.write_shard, []

    def once(path, samples):
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, samples)

    monkeypatch.setattr(rows, "write_shard", once)
    with pytest.raises(KeyboardInterrupt):
        rows.convert(store, output)
    return written


def test_a_killed_conversion_goes_on(reinforced, rows_dir, tmp_path, monkeypatch):
    write = rows.write_shard
    written = stopped_after_one(monkeypatch, reinforced, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()
    monkeypatch.setattr(rows, "write_shard", lambda path, samples: (written.append(path.name), write(path, samples)))
    rows.convert(reinforced, tmp_path / "rows")
    assert written == ["00000.tar.partial", "00001.tar.partial"]
    for shard in ("00000.tar", "00001.tar", "manifest.json"):
        assert (tmp_path / "rows" / shard).read_bytes() == (rows_dir / shard).read_bytes()


def test_rows_of_a_store_that_changed_meanwhile_are_made_anew(reinforced, tmp_path, monkeypatch):
    store, write = shutil.copytree(reinforced, tmp_path / "store"), rows.write_shard
    stopped_after_one(monkeypatch, store, tmp_path / "rows")
    samples = [{**sample, "txt": b"another caption"} for sample in read_shard(store / "00000.tar")]
    write_shard(store / "00000.tar", samples)
    monkeypatch.setattr(rows, "write_shard", write)
    rows.convert(store, tmp_path / "rows")
    assert {sample["txt"] for sample in read_shard(tmp_path / "rows/00000.tar")} == {b"another caption"}


def test_an_image_of_another_sample_is_noticed(reinforced, tmp_path):
    store = shutil.copytree(reinforced, tmp_path / "store")
    first, *rest = read_shard(store / "00000.tar")
    write_shard(store / "00000.tar", [{**first, "webp": rest[0]["webp"]}, *rest])
    with pytest.raises(UserError, match=f"{first['__key__']} is damaged .*not the one whose sha256 was stored"):
        rows.convert(store, tmp_path / "rows")
