"""Bytes of what is stored: those of tar files that were written so, and what they come to by hand."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from clipdr.data.samples import decode, encode
from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError
from clipdr.reinforce.storage import measure
from clipdr.report.storage import build, summarise
from clipdr.words import SIZE

FULL = {"views": 3, "captions": 2}  # what the store of the tests has
FORMS = [("bfloat16", True), ("bfloat16", False), ("float32", True), ("float32", False), ("int8", False)]


def measured(store: Path, tmp_path: Path, *stores: dict, widths=(8, 8)) -> dict:
    rows = [{"row": str(n), "stores": {"samples": 1} | one} for n, one in enumerate(stores)]
    measure(store, {"widths": list(widths), "rows": rows}, tmp_path / "storage.json")
    return json.loads((tmp_path / "storage.json").read_text())


def tar_bytes(tmp_path: Path, samples: list[dict]) -> int:
    """Bytes of a tar file of these samples, without the blocks that close it and fill it up."""
    write_shard(tmp_path / "written.tar", samples)
    with tarfile.open(tmp_path / "written.tar") as tar:
        tar.getmembers()
        return tar.offset


def members(store: Path) -> list[dict]:
    return [sample for shard in ("00000.tar", "00001.tar") for sample in read_shard(store / shard)]


def test_a_whole_store_takes_what_its_files_take(reinforced: Path, tmp_path: Path) -> None:
    """bfloat16 with gzip is how the store was written."""
    found = measured(reinforced, tmp_path, FULL | {"embeddings": "bfloat16", "gzip": True})
    whole = sum(tar_bytes(tmp_path, list(read_shard(reinforced / shard))) for shard in ("00000.tar", "00001.tar"))
    assert found["samples"] == 6
    assert 6 * (found["plain"] + found["rows"][0]["here"]) == pytest.approx(whole, abs=0.1)


@pytest.mark.parametrize(("views", "texts"), [(3, 2), (2, 1), (1, 0), (0, 2)])
@pytest.mark.parametrize("precision", ["bfloat16", "float32", "int8"])
def test_fewer_views_and_captions_take_what_a_smaller_store_takes(
    reinforced: Path, tmp_path: Path, views: int, texts: int, precision: str
) -> None:
    stores = {"views": views, "captions": texts, "embeddings": precision, "gzip": precision == "bfloat16"}
    found = measured(reinforced, tmp_path, stores)
    smaller = []
    for sample in members(reinforced):
        one = decode(sample)
        emb = one.img_AE[:views].float(), one.txt_TE[: texts + 1].float()
        smaller.append(encode(sample, one.synthetic[:texts], one.augmentations[:views], *emb, precision))
    empty = [name for name, number in (("paug.json", views), ("syn.json", texts)) if not number]
    smaller = [{name: data for name, data in sample.items() if name not in empty} for sample in smaller]
    assert 6 * (found["plain"] + found["rows"][0]["here"]) == pytest.approx(tar_bytes(tmp_path, smaller), abs=0.1)


def test_what_a_store_has_not_is_not_measured(reinforced: Path, tmp_path: Path) -> None:
    found = measured(reinforced, tmp_path, FULL | {"views": 4}, FULL | {"captions": 3}, FULL)
    assert [row["here"] is None for row in found["rows"]] == [True, True, False]
    assert all(row["paper"] > 0 for row in found["rows"])


def test_at_the_papers_widths_bytes_are_those_of_the_numbers(reinforced: Path, tmp_path: Path) -> None:
    """30 views and 6 texts of 2 x 768: float32 takes 4 bytes of each number, int8 one and a scale per row."""
    stores = {"views": 30, "captions": 5}
    rows = [stores | {"embeddings": precision, "gzip": gzip} for precision, gzip in FORMS]
    bare, *sizes = (row["paper"] for row in measured(reinforced, tmp_path, stores, *rows, widths=(768, 768))["rows"])
    bf16_gzip, bf16, fp32_gzip, fp32, int8 = (size - bare for size in sizes)
    numbers = 36 * 1536
    for size, expected in ((bf16, 2 * numbers), (fp32, 4 * numbers), (int8, numbers + 4 * 36)):
        assert expected < size < expected + 4096  # names and headers of arrays, header and padding of the member
    assert int8 < bf16_gzip < bf16 < fp32_gzip < fp32
    # Exponents of unit vectors repeat, mantissas do not: about 11 of 16 bits are left.
    assert 0.6 < bf16_gzip / bf16 < 0.8


def test_a_store_without_embeddings(reinforced: Path, tmp_path: Path) -> None:
    store = shutil.copytree(reinforced, tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(manifest | {"teachers": []}))
    with pytest.raises(UserError, match="stores no embeddings; reinforce it with teachers"):
        measured(store, tmp_path, FULL)


EXPERIMENT = {
    "title": "Storage",
    "source": "a paper",
    "columns": [SIZE],
    "storage": {"widths": [768, 768]},
    "rows": [
        {"name": "plain", "stores": {"samples": 1000_000}, "published": {SIZE: 0.5}},
        {
            "name": "reinforced",
            "stores": {
                "samples": 1000_000,
                "on": "plain",
                "views": 2,
                "captions": 1,
                "embeddings": "int8",
                "gzip": False,
            },
        },
    ],
}
SIZES = {"samples": 6, "plain": 2048, "rows": {"plain": (0, 0), "reinforced": (None, 250_000.0)}}


def test_terabytes_by_hand() -> None:
    plain, reinforced = summarise(EXPERIMENT, SIZES)
    assert (plain["TB"], plain["paper TB"], plain["bytes"]) == (None, 0.5, None)
    assert reinforced["TB"] == pytest.approx(0.5 + 0.25)  # 250 kB each of a million
    assert reinforced["paper TB"] is None and reinforced["bytes here"] is None


def test_the_table_shows_ours_beside_the_papers(tmp_path: Path) -> None:
    (tmp_path / "storage.json").write_text(
        json.dumps(SIZES | {"rows": [{"row": name, "here": h, "paper": p} for name, (h, p) in SIZES["rows"].items()]})
    )
    report = {"experiment": EXPERIMENT, "scale": {"name": "mini", "title": "small"}, "storage": "storage.json"}
    build(report, tmp_path, tmp_path / "table")
    text = (tmp_path / "table.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| (row|reinforced) ", line)]
    cells = dict(zip(*([cell.strip() for cell in line] for line in lines), strict=True))
    assert cells["kB per sample at the paper's widths"] == "250.00" and cells["kB per sample (scale mini)"] == "–"
    assert cells["Size (TB) (scale mini)"] == "0.75" and cells["Size (TB) (paper)"] == "–"
    assert (tmp_path / "table.tex").read_text().count(r"\\") == 3
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 3
    (tmp_path / "storage.json").write_text(json.dumps(SIZES | {"rows": []}))
    with pytest.raises(UserError, match="storage.json: has no row 'plain'; delete it and measure again"):
        build(report, tmp_path, tmp_path / "table")
