"""The picture of the chain, from a hand-made pool."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipdr.data.shards import write_shard
from clipdr.errors import UserError
from clipdr.report import captions, chain


@pytest.fixture()
def pool(tmp_path, monkeypatch):
    """(pool folder, manifest of captions): four concepts, each by three vendors, twice."""
    vendors = ("noto", "fluent-emoji-flat", "twemoji")
    lines = [{"uid": f"u{i:02d}", "concept": f"c{i % 4}", "vendor": vendors[i % 3]} for i in range(24)]
    samples = []
    for i, line in enumerate(lines):
        stream = io.BytesIO()
        Image.new("RGB", (16, 16), (10 * i, 99, 255 - 10 * i)).save(stream, "webp", lossless=True)
        line |= {
            "shard": "00000.tar",
            "caption": f"thing {line['concept']} costs $5 and $6",
            "texts": ["thing"],
            "sha256": "",
        }
        samples.append({"__key__": line["uid"], "webp": stream.getvalue()})
    (tmp_path / "pool").mkdir()
    write_shard(tmp_path / "pool" / "00000.tar", samples)
    pd.DataFrame(lines).to_parquet(tmp_path / "pool" / "index.parquet")
    captioned = [line["uid"] for line in lines if line["uid"] != "u00"]
    syn = [["a long drawing of a thing " * 9, "a thing"]] * len(captioned)
    monkeypatch.setattr(chain, "ENOUGH", 23)  # the second shard, which is not there, is not needed
    (tmp_path / "captions").mkdir()
    pd.DataFrame({"uid": captioned, "syn": syn}).to_parquet(tmp_path / "captions/00000.parquet")
    (tmp_path / "manifest.json").write_text('{"shards": {"captions/00000.parquet": 23, "captions/00001.parquet": 9}}')
    return tmp_path / "pool", tmp_path / "manifest.json"


def test_chain_shows_licensed_captioned_images_of_distinct_concepts(pool):
    folder, manifest = pool
    index, texts = pd.read_parquet(folder / "index.parquet"), chain.read_captions(manifest)
    assert len(chain.choose(index, texts, 3)) == 3
    chosen = chain.choose(index, texts, 6)
    assert len(chosen) == 4  # there are no more concepts
    assert chosen["concept"].is_unique
    assert set(chosen["vendor"]) <= {"noto", "fluent-emoji-flat"}
    assert "u00" not in set(chosen["uid"])
    again = chain.choose(index.sample(frac=1, random_state=0), texts.sample(frac=1, random_state=1), 6)
    assert again["uid"].tolist() == chosen["uid"].tolist()


def test_chain_picture_is_the_same_each_time(pool, tmp_path):
    folder, manifest = pool
    for name in ("1.png", "2.png"):
        chain.draw(folder, manifest, tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "1.png").convert("RGB")).reshape(-1, 3)
    uid = chain.choose(pd.read_parquet(folder / "index.parquet"), chain.read_captions(manifest), 6)["uid"].iloc[0]
    colour = (10 * int(uid[1:]), 99, 255 - 10 * int(uid[1:]))
    assert (picture == colour).all(axis=1).sum() > 10_000  # the chosen image is there, in its own colours


def test_a_pool_without_vendors_shows_any_of_its_images(pool, tmp_path):
    folder, manifest = pool
    index = pd.read_parquet(folder / "index.parquet").drop(columns=["vendor", "concept"])
    index.to_parquet(folder / "index.parquet")
    chosen = chain.choose(index, chain.read_captions(manifest), 30)
    assert len(chosen) == 23 and chosen["uid"].is_unique  # all that have captions
    chain.draw(folder, manifest, tmp_path / "own.png")
    assert (tmp_path / "own.png").stat().st_size > 10_000


def test_captions_stand_below_the_images_and_the_picture_is_the_same_each_time(pool, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    written = []
    text = Figure.text
    monkeypatch.setattr(
        Figure, "text", lambda self, x, y, s, **style: written.append((s, style)) or text(self, x, y, s, **style)
    )
    for name in ("1.png", "2.png"):
        captions.draw(*pool, tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    half = written[: len(written) // 2]
    real = [s for s, style in half if style.get("color") == chain.HUMAN]
    synthetic = [s for s, style in half if style.get("color") == chain.SYNTHETIC]
    assert len(real) == 4 and all(s.startswith("thing c") for s in real)
    assert len(synthetic) == 8 and sum(s == "a thing" for s in synthetic) == 4


def test_chain_errors_name_the_file(pool, tmp_path):
    folder, manifest = pool
    with pytest.raises(UserError, match=r"none\.json: missing"):
        chain.draw(folder, tmp_path / "none.json", tmp_path / "x.png")
    (folder / "00000.tar").unlink()
    with pytest.raises(UserError, match=r"00000\.tar: cannot read the image of u"):
        chain.draw(folder, manifest, tmp_path / "x.png")
