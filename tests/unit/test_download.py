"""Published reinforcements from a hub and from a folder, and their images from a server as bad as the world's."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from published import (
    CHANGED,
    CUT,
    FLAKY,
    FORBIDDEN,
    GONE,
    MOVED,
    PAGE,
    REPOSITORY,
    REVISION,
    SETTINGS,
    SLOW,
    picture,
    serving,
    uid,
    write_tree,
)

from clipdr.chunks import chunk_names
from clipdr.data.manifest import read_manifest
from clipdr.data.shards import read_shard
from clipdr.data.views import read_views
from clipdr.errors import UserError
from clipdr.files import sha256
from clipdr.pool.reinforcements import download_reinforcements
from clipdr.reinforce.join import join
from clipdr.reinforce.verify import verify

REPO = Path(__file__).parents[2]
DOWNLOADER = REPO / ".venv-download/bin/python"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    with serving(tmp_path / "published") as server:
        yield server


@pytest.fixture
def tree(world: ThreadingHTTPServer, tmp_path: Path) -> Path:
    write_tree(tmp_path, world.server_port)
    return tmp_path


def command(*args: object, **env: str) -> subprocess.CompletedProcess:
    """`python -m clipdr.pool …` in the environment of what fetches."""
    command = [DOWNLOADER, "-m", "clipdr.pool", *map(str, args)]
    told = {**os.environ, "PYTHONPATH": str(REPO / "src"), **env}
    return subprocess.run(command, env=told, capture_output=True, text=True, timeout=300)


def settings(tree: Path, **changes: object) -> Path:
    asked = {"processes": 1, "threads": 4, "timeout": 2, "retries": 1}
    told = {"reinforcements": str(tree / "published"), "captions": str(tree / "captions"), "images": asked} | changes
    (tree / "settings.json").write_text(json.dumps(told))
    return tree / "settings.json"


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_every_shard_of_a_folder_is_in_one_chunk_under_a_name_of_its_own(tree: Path, chunks: int) -> None:
    told = {"reinforcements": str(tree / "published"), "chunks": chunks}
    for name in chunk_names(chunks):
        download_reinforcements(told, name, tree / "fetched" / name)
    found = sorted(path.name for path in (tree / "fetched").rglob("*.tar"))
    assert found == ["00-00000000.tar", "00-00000001.tar", "01-00000000.tar"]
    (last,) = (tree / "fetched").rglob("01-00000000.tar")
    assert [sample["__key__"] for sample in read_shard(last)] == [uid(9)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": 4}, "pool.chunks is 4, but .*published has 3 shards; lower it"),
        ({"reinforcements": "nothing/here"}, "pool.reinforcements: nothing/here holds no .tar files"),
    ],
)
def test_a_source_that_does_not_fit_is_named(tree: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        download_reinforcements({"reinforcements": str(tree / "published")} | changes, "0-of-1", tree / "fetched")


@pytest.mark.slow
def test_a_hub_gives_what_it_has_and_an_error_names_what_it_has_not(tree: Path, world: ThreadingHTTPServer) -> None:
    hub = {
        "HF_ENDPOINT": f"http://127.0.0.1:{world.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tree / "hf"),
    }
    told = settings(tree, reinforcements=REPOSITORY, revision=REVISION, chunks=2)
    done = command("reinforcements", "--settings", told, "--chunk", "1-of-2", "--output", tree / "fetched", **hub)
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_bytes() for path in (tree / "fetched").iterdir() if path.suffix == ".tar"}
    assert found == {
        name: (tree / "published" / name.replace("-", "/")).read_bytes()
        for name in ("00-00000001.tar", "01-00000000.tar")
    }
    assert {path.name for path in (tree / "fetched").iterdir()} == {*found, ".token"}
    told = settings(tree, reinforcements=REPOSITORY, revision="f" * 40)
    done = command("reinforcements", "--settings", told, "--chunk", "0-of-1", "--output", tree / "other", **hub)
    assert done.returncode == 1 and not (tree / "other").exists()
    assert done.stderr.splitlines()[-1].startswith(f"error: pool.reinforcements: {REPOSITORY} at ffff"), done.stderr


@pytest.mark.slow
def test_what_the_world_still_has_is_joined_and_the_rest_is_counted(tree: Path) -> None:
    download_reinforcements({"reinforcements": str(tree / "published")}, "0-of-1", tree / "fetched")
    told = settings(tree)
    done = command("images", "--settings", told, "--reinforcements", tree / "fetched", "--output", tree / "images")
    assert done.returncode == 0, done.stderr
    report = pd.concat([pd.read_csv(path, dtype=str) for path in sorted((tree / "images").glob("*.csv"))])
    assert sorted(report["uid"]) == [uid(n) for n in range(10)]  # each address once
    status = {int(row.uid, 16): row.status for row in report.itertuples()}
    assert "404" in status[GONE] and "timed out" in status[SLOW] and status[CUT] != "success"
    assert all(status[n] == "success" for n in (0, MOVED, PAGE, CHANGED, FLAKY, 8, 9))
    join(tree / "fetched", tree / "images", None, SETTINGS, tree / "store")
    manifest = read_manifest(tree / "store")
    assert manifest["in"] == 10 and manifest["skipped"] == {
        "there is no image": 3,  # gone, slow, cut
        "the image is damaged": 1,  # a page
        "the image was changed: it has another sha256": 1,
    }
    views = read_views(tree / "store", 16)
    assert views.uids == [uid(n) for n in (0, MOVED, FLAKY, 8, 9)] and verify(tree / "store", [], 0.0) == []
    assert [row[0] for row in views.texts] == [f"text {n}" for n in (0, MOVED, FLAKY, 8, 9)]
    for shard in manifest["shards"]:
        for sample in read_shard(tree / "store" / shard):
            assert sample["jpg"] == picture(int(sample["__key__"], 16))  # not encoded again


@pytest.mark.slow
def test_killed_downloads_go_on_without_asking_finished_shards_again(tree: Path, world: ThreadingHTTPServer) -> None:
    download_reinforcements({"reinforcements": str(tree / "published")}, "0-of-1", tree / "fetched")
    told = settings(tree)
    args = [DOWNLOADER, "-m", "clipdr.pool", "images", "--settings", told, "--reinforcements", tree / "fetched"]
    process = subprocess.Popen(
        [*map(str, args), "--output", str(tree / "images")],
        env={**os.environ, "PYTHONPATH": str(REPO / "src")},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (tree / ".images.partial/00-00000000.csv").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, 9)
    process.wait()
    assert not (tree / "images").exists()
    first = [f"/{number}.jpg" for number in range(6)]
    before = [world.asked[path] for path in first]
    done = command("images", "--settings", told, "--reinforcements", tree / "fetched", "--output", tree / "images")
    assert done.returncode == 0, done.stderr
    assert [world.asked[path] for path in first] == before and all(before)
    assert sorted(path.name for path in (tree / "images").glob("*.csv")) == [
        "00-00000000.csv", "00-00000001.csv", "01-00000000.csv",
    ]  # fmt: skip


@pytest.mark.slow
def test_captions_that_cannot_be_read_are_named(tree: Path) -> None:
    download_reinforcements({"reinforcements": str(tree / "published")}, "0-of-1", tree / "fetched")
    pd.DataFrame({"uid": ["a"], "words": ["b"]}).to_parquet(tree / "captions/2.parquet")
    for captions in (tree / "captions/2.parquet", tree / "none"):
        told = settings(tree, captions=str(captions))
        done = command("images", "--settings", told, "--reinforcements", tree / "fetched", "--output", tree / "images")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"error: pool.captions: {captions} cannot be read"), done.stderr


@pytest.mark.slow
def test_without_reinforcements_the_metadata_say_what_is_fetched(tree: Path, world: ThreadingHTTPServer) -> None:
    table = pd.DataFrame({"uid": [uid(n) for n in (0, GONE, 8, 9)], "text": ["a", "b", "c", "d"]})
    table["url"] = [f"http://127.0.0.1:{world.server_port}/{n}.jpg" for n in (0, GONE, 8, FORBIDDEN)]
    table["sha256"] = [sha256(picture(n)) for n in (0, GONE, 8, 9)]
    table.to_parquet(tree / "metadata.parquet")
    told = tree / "settings.json"
    told.write_text(json.dumps({"captions": str(tree / "metadata.parquet"), "bad_samples": "skip"}))
    done = command("reinforcements", "--settings", told, "--chunk", "0-of-1", "--output", tree / "fetched")
    assert done.returncode == 0, done.stderr
    done = command("images", "--settings", told, "--reinforcements", tree / "fetched", "--output", tree / "images")
    assert done.returncode == 0, done.stderr
    join(tree / "fetched", tree / "images", None, {"bad_samples": "skip"}, tree / "pool")
    samples = list(read_shard(tree / "pool/00000000.tar"))
    assert [(sample["__key__"], sample["txt"], sample["jpg"]) for sample in samples] == [
        (uid(0), b"a", picture(0)), (uid(8), b"c", picture(8)),
    ]  # fmt: skip
    report = pd.read_csv(tree / "images/00000000.csv", dtype=str).set_index("uid")["status"]
    assert "disallowed by X-Robots-Tag" in report[uid(9)] and report[uid(0)] == "success"
