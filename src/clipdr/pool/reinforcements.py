"""Fetch published reinforcements, such as apple/DataCompDR-12M-bf16: shards with everything but images and captions.

They come from the Hugging Face Hub, or from a folder in its layout: `00000000.tar`, … , or `00/00000000.tar`, …
in folders. Here they lie side by side, `00-00000000.tar`.
"""

import json
import os
import shutil
from pathlib import Path

from clipdr.chunks import chunk_names, runs
from clipdr.errors import UserError
from clipdr.files import reason, resumable_dir, sha256
from clipdr.progress import unfinished


def download_reinforcements(settings: dict, chunk: str, output: Path) -> None:
    """Fetch a run of the shards; those that were fetched before a kill are kept.

    Args:
        settings: `reinforcements`, a dataset of the hub with its `revision`, or a folder; `chunks`.
        chunk: which run, a name of `clipdr.chunks`.
        output: folder of the shards.

    Raises:
        UserError: there are no shards, fewer than chunks, or one cannot be fetched.
    """
    source, revision, chunks = settings["reinforcements"], settings.get("revision"), settings.get("chunks", 1)
    shards = _on_hub(source, revision) if revision else _in_folder(Path(source))
    if not shards:
        raise UserError(
            f"pool.reinforcements: {source} holds no .tar files; name a dataset in the layout of DataCompDR"
        )
    if chunks > len(shards):
        raise UserError(f"pool.chunks is {chunks}, but {source} has {len(shards)} shards; lower it")
    mine = dict(zip(chunk_names(chunks), runs(shards, chunks), strict=True))[chunk]
    token = sha256(json.dumps([source, revision, mine]).encode())
    with resumable_dir(output, token) as folder:
        for shard in unfinished(mine, output.name, lambda shard: folder / _flat(shard)):
            if revision:
                _fetch(source, revision, shard, folder / ".hub").replace(folder / _flat(shard))
            else:
                _link(Path(source) / shard, folder / _flat(shard))
        shutil.rmtree(folder / ".hub", ignore_errors=True)


def _flat(shard: str) -> str:
    return shard.replace("/", "-")


def _in_folder(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar"))


def _on_hub(source: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(source, repo_type="dataset", revision=revision)
    except (OSError, ValueError) as error:  # its own errors are both
        raise _unreachable(source, revision, error) from None
    return sorted(name for name in names if name.endswith(".tar"))


def _fetch(source: str, revision: str, shard: str, scratch: Path) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        found = hf_hub_download(source, shard, repo_type="dataset", revision=revision, local_dir=scratch)
    except (OSError, ValueError) as error:
        raise _unreachable(f"{source}: {shard}", revision, error) from None
    return Path(found)


def _unreachable(what: str, revision: str, error: Exception) -> UserError:
    return UserError(
        f"pool.reinforcements: {what} at {revision} cannot be fetched ({reason(error)}); check name, revision and "
        "network, then give the same command again: finished shards are kept"
    )


def _link(source: Path, target: Path) -> None:
    """A second name of the file, or a copy where another disk holds it."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(source, partial)
        partial.replace(target)
