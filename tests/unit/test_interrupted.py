"""Stages of the reinforcement, killed in the second shard and out of room: nothing is seen half made, nothing lost."""

import os
import resource
import signal
from pathlib import Path

import pandas as pd
import pytest
from published import SETTINGS, SHARDS, fetched, published
from small import in_processes

from clipdr.data import rows
from clipdr.data.shards import write_shard
from clipdr.errors import UserError
from clipdr.files import no_room
from clipdr.pool import folder as folder_pool
from clipdr.reinforce import captions as captioning
from clipdr.reinforce import embed, join, stored

CAPTIONS = {"number": 2, "top_p": 0.9, "temperature": 1.0, "max_tokens": 11, "min_tokens": 2, "redraws": 1, "seed": 0}
POOL = {"held_out": 1, "bad_samples": "fail", "seed": 0, "shard_size": 2}
STAGES = ["caption", "embed", "rows", "join", "take_reinforcements", "folder pool"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, pool, captioner, teachers, captions, augmentation, reinforced) -> dict:
    """What the stages read, as paths and settings that another process can be given."""
    tree = tmp_path_factory.mktemp("published")
    for kind, sample in (("reinforcements", published), ("images", fetched)):
        (tree / kind).mkdir()
        for shard, numbers in SHARDS.items():
            write_shard(tree / kind / shard, [sample(n) for n in numbers])
    join.join(tree / "reinforcements", tree / "images", None, SETTINGS, tree / "joined")
    return {
        "pool": pool[0],
        "captioner": captioner,
        "teachers": list(teachers),
        "captions": captions,
        "settings": {"augmentation": augmentation, "teachers": ["small", "large"]},
        "reinforced": reinforced,
        "tree": tree,
    }


def work(stage: str, sources: dict, output: Path) -> None:
    index = pd.read_parquet(sources["pool"] / "index.parquet")
    tree = sources["tree"]
    match stage:
        case "caption":
            captioning.caption(sources["pool"], index, sources["captioner"], CAPTIONS, output)
        case "embed":
            read = (sources["captions"], sources["teachers"], sources["settings"])
            embed.reinforce(sources["pool"], index, *read, output)
        case "rows":
            rows.convert(sources["reinforced"], output)
        case "join":
            join.join(tree / "reinforcements", tree / "images", None, SETTINGS, output)
        case "take_reinforcements":
            chosen = pd.read_parquet(tree / "joined/index.parquet")
            settings = {key: SETTINGS[key] for key in ("teachers", "augmentation")}
            stored.take_reinforcements(tree / "joined", chosen, settings, output)
        case "folder pool":
            folder_pool.build(sources["pool"], POOL, output, output.with_name("tasks"))


def killed(stage: str, sources: dict, output: Path) -> None:
    """The work, up to the moment in which the second shard begins to be read."""
    from clipdr.data import shards

    opened, read = [], shards.read_shard

    def read_one(path: Path):
        opened.append(path.name)
        if len(set(opened)) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)

    for module in (shards, "clipdr.data.subset", "clipdr.data.manifest", "clipdr.reinforce.join", "clipdr.pool.folder"):
        module = __import__(module, fromlist=["read_shard"]) if isinstance(module, str) else module
        module.read_shard = read_one
    work(stage, sources, output)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sources):
    """Stage -> what it makes undisturbed."""
    made = {}
    for stage in STAGES:
        folder = tmp_path_factory.mktemp("whole") / "made"
        work(stage, sources, folder)
        made[stage] = content(folder)
        assert len(made[stage]) >= 3
    return made


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_like_one_that_was_not(stage: str, sources: dict, whole: dict, tmp_path: Path) -> None:
    (code,) = in_processes(1, killed, stage, sources, tmp_path / "made")
    assert code == -signal.SIGKILL and not (tmp_path / "made").exists()
    work(stage, sources, tmp_path / "made")
    assert content(tmp_path / "made") == whole[stage]
    assert {path.name for path in tmp_path.iterdir()} <= {"made", "tasks"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    stage: str, sources: dict, whole: dict, tmp_path: Path
) -> None:
    """Files may not grow beyond half of the largest that the stage writes, which fails as a full disk does."""
    limit = max(map(len, whole[stage].values())) // 2
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with pytest.raises((OSError, UserError)) as caught:
            work(stage, sources, tmp_path / "made")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, handler)
    assert no_room(caught.value) or "cannot be written" in str(caught.value)  # one line, see clipdr.cli.run
    assert not (tmp_path / "made").exists()
    work(stage, sources, tmp_path / "made")
    assert content(tmp_path / "made") == whole[stage]
