"""Tasks from a hub: what the lock says is what one gets, all of it or nothing."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from published import REPOSITORY, REVISION, picture, serving

from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.evaluate.download import fetch, plan, read_lock
from clipdr.files import sha256
from clipdr.pool.layout import write_classification

pytestmark = pytest.mark.slow
TASK = {"key": "vtab/tiny", "title": "Tiny", "kind": "classification", "main_metric": "acc1", "source": REPOSITORY}
IMPORTS = """
from pathlib import Path
from clipdr import cli
from clipdr.evaluate.download import fetch, write_lock
"""
CAPTIONS = [["A dog.", "A brown\ndog"], ["A cat"]]


@pytest.fixture()
def hub(tmp_path):
    """A task folder on a server, and how to call the module with it: every process reads the address once."""
    tree = tmp_path / "tree"
    write_classification(tree, [{"jpg": picture(n), "cls": b"0"} for n in range(3)], ["thing"], ["a {c}"])
    (tree / "README.md").write_text("not a part of the task")
    with serving(tree) as server:
        environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hf"),
        }

        def call(expression: str) -> subprocess.CompletedProcess:
            code = f"{IMPORTS}\ncli.run(lambda: {expression})"
            told = {**os.environ, **environment}
            return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=told)

        yield tree, server, call


def lock_of(tree, call, task=TASK):
    done = call(f"write_lock({{'tasks': [{task!r}]}}, Path('suite.lock.json'))")
    assert done.returncode == 0, done.stderr
    return tree.parent / "suite.lock.json"


def test_a_lock_has_what_the_task_consists_of(hub):
    tree, _, call = hub
    locked = json.loads(lock_of(tree, call).read_text())["vtab/tiny"]
    names = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()} - {"README.md"}
    expected = {
        name: {
            "size": (tree / name).stat().st_size,
            "sha256": sha256((tree / name).read_bytes()),
        }
        for name in names
    }
    assert locked == {"source": REPOSITORY, "revision": REVISION, "files": expected}


def test_a_task_is_fetched_whole_and_goes_on_where_it_stopped(hub):
    tree, server, call = hub
    lock = lock_of(tree, call)
    hidden = (tree / "zeroshot_classification_templates.txt").rename(tree.parent / "hidden")
    fetching = f"fetch({TASK!r}, Path({str(lock)!r}), Path('wds_vtab-tiny'))"
    done = call(fetching)
    assert done.returncode == 1 and "finished files are kept" in done.stderr.splitlines()[-1]
    assert not (tree.parent / "wds_vtab-tiny").exists()
    hidden.rename(tree / "zeroshot_classification_templates.txt")
    server.asked.clear()
    assert call(fetching).returncode == 0
    assert not any("0.tar" in path for path in server.asked)  # it was there already
    folder = tree.parent / "wds_vtab-tiny"
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found.pop(".token")
    files = json.loads(lock.read_text())["vtab/tiny"]["files"]
    assert found == {name: (tree / name).read_bytes() for name in files}


def test_other_bytes_than_the_lock_says_are_refused(hub):
    tree, _, call = hub
    lock = lock_of(tree, call)
    shutil.rmtree(tree.parent / "hf")  # what the hub's client keeps of the lock
    (tree / "classnames.txt").write_text("thinG\n")  # the same size
    done = call(f"fetch({TASK!r}, Path({str(lock)!r}), Path('wds_vtab-tiny'))")
    assert done.returncode == 1 and f"{REPOSITORY}: classnames.txt has" in done.stderr.splitlines()[-1]
    assert not (tree.parent / "wds_vtab-tiny").exists()


def test_a_table_of_captions_becomes_a_task(hub):
    tree, _, call = hub
    task = {**TASK, "kind": "retrieval", "form": "captions-table"}
    rows = [f'{n}.jpg,"{json.dumps(own).replace(chr(34), chr(34) * 2)}",test' for n, own in enumerate(CAPTIONS)]
    (tree / "captions.csv").write_text("\n".join(["filename,raw,split", *rows]), encoding="utf-8")
    with zipfile.ZipFile(tree / "images.zip", "w") as archive:
        for n in (1, 0):
            archive.writestr(f"images/{n}.jpg", picture(n))
    lock = lock_of(tree, call, task)
    assert set(json.loads(lock.read_text())["vtab/tiny"]["files"]) == {"captions.csv", "images.zip"}
    done = call(f"fetch({task!r}, Path({str(lock)!r}), Path('wds_vtab-tiny'))")
    assert done.returncode == 0, done.stderr
    folder = tree.parent / "wds_vtab-tiny"
    samples = list(read_shard(folder / "test/0.tar"))
    assert [sample["jpg"] for sample in samples] == [picture(0), picture(1)]
    assert [sample["txt"].decode() for sample in samples] == ["A dog.\nA brown dog", "A cat"]
    assert {path.name for path in folder.iterdir()} == {".token", "test", "dataset_type.txt"}


def test_a_plan_tells_what_is_there_and_what_is_left(hub, monkeypatch):
    tree, _, call = hub
    lock, tasks = lock_of(tree, call), tree.parent / "tasks"
    suite = {"tasks": [TASK, {**TASK, "key": "flickr", "by_hand": "a form"}, {**TASK, "key": "there"}]}
    del suite["tasks"][1]["source"]
    (tasks / "wds_there").mkdir(parents=True)
    size = sum(file["size"] for file in json.loads(lock.read_text())["vtab/tiny"]["files"].values())
    near = {"key": "vtab/near", "images_of": "vtab/tiny"}
    assert plan({lock: {"tasks": [near]}}, tasks).startswith("vtab/near: reads vtab/tiny\n")
    first, second, third, total = plan({lock: suite}, tasks).splitlines()
    assert first == f"vtab/tiny: {size / 1e9:.2f} GB from {REPOSITORY}"
    assert second == f"flickr: by hand, into {tasks / 'wds_flickr'}: a form" and third == "there: there"
    assert total.startswith(f"{size / 1e9:.2f} GB are to be fetched, ")
    monkeypatch.setattr("clipdr.evaluate.download.shutil.disk_usage", lambda _: type("", (), {"free": size})())
    with pytest.raises(UserError, match="make room, or name fewer tasks"):
        plan({lock: suite}, tasks)
    with pytest.raises(UserError, match="has no other/task; write the lock again"):
        plan({lock: {"tasks": [{**TASK, "key": "other/task"}]}}, tasks)


def test_a_lock_that_leads_out_of_the_folder_is_refused(tmp_path):
    lock = tmp_path / "suite.lock.json"
    with pytest.raises(UserError, match="python -m clipdr.evaluate lock --suite suite"):
        fetch(TASK, lock, tmp_path / "task")
    for name in ("../../x", "/etc/x", "test/../../x"):
        lock.write_text(json.dumps({"vtab/tiny": {"source": "a/b", "revision": "c", "files": {name: {}}}}))
        with pytest.raises(UserError, match="leads out of the task folder"):
            read_lock(lock)
