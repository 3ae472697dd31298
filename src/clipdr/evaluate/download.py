"""Fetch the tasks of a suite from the Hugging Face Hub, at pinned revisions, and check every byte.

A suite's entry says where a task comes from (`source`), and in which form: `webdataset`, a task folder as it is, or
`captions-table`, a CSV with `filename` and `raw`, a JSON list of captions, beside a zip of the images. What is to be
fetched, with the revision and each file's size and sha256, stands in a lock beside the suite, which `lock` writes and
people read before they trust it. A task that nobody may hand out has no source but `by_hand`, which says where it is
got; its folder is checked like the others when it is evaluated.
"""

import csv
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from clipdr.errors import UserError, listed
from clipdr.evaluate.tasks import folder_of
from clipdr.files import atomic_file, reason, resumable_dir, sha256, sha256_file
from clipdr.pool.layout import write_task
from clipdr.progress import log, unfinished

AROUND = ("classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt")
FORMS = {
    "webdataset": lambda name: name in AROUND or name.startswith(("test/", "train/")),
    "captions-table": lambda name: name.endswith((".csv", ".zip")),
}
ROOM = 1.1  # times what is left to fetch must be free: a table's images are written a second time


def write_lock(suite: Mapping, output: Path) -> None:
    """Write what each task with a source consists of now: key -> source, revision, files with size and sha256.

    Raises UserError if the hub cannot be reached, or has no files of the form that the suite says.
    """
    entries = {entry["key"]: _locked(entry) for entry in suite["tasks"] if "source" in entry}
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    log.info("%s: %d tasks, %s", output, len(entries), _gigabytes(sum(map(_bytes, entries.values()))))


def plan(suites: Mapping[Path, Mapping], tasks_dir: Path) -> str:
    """What is there, what is to be fetched and what is left to people, with the bytes of it all.

    Args:
        suites: lock -> suite.
        tasks_dir: folder of the task folders.

    Raises UserError if the disk has no room for it, or a lock lacks a task.
    """
    lines, left = [], 0
    for lock, entry in ((lock, entry) for lock, suite in suites.items() for entry in suite["tasks"]):
        folder = tasks_dir / folder_of(entry)
        if "images_of" in entry:
            lines.append(f"{entry['key']}: reads {entry['images_of']}")
        elif folder.is_dir():
            lines.append(f"{entry['key']}: there")
        elif "source" in entry:
            size = _bytes(_of(read_lock(lock), entry["key"], lock))
            left += size
            lines.append(f"{entry['key']}: {_gigabytes(size)} from {entry['source']}")
        else:
            lines.append(f"{entry['key']}: by hand, into {folder}: {entry.get('by_hand', 'no source is known')}")
    tasks_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(tasks_dir).free
    lines.append(f"{_gigabytes(left)} are to be fetched, {_gigabytes(free)} are free in {tasks_dir}")
    if free < ROOM * left:
        raise UserError("\n".join([*lines, "make room, or name fewer tasks in the suite"]))
    return "\n".join(lines)


def fetch(entry: Mapping, lock: Path, output: Path) -> None:
    """Make a task folder; files that were fetched before a kill are kept.

    Args:
        entry: of the suite.
        lock: file of the suite's lock.
        output: the task folder.

    Raises:
        UserError: a file cannot be fetched, has another size or hash than the lock says, or is of another form.
    """
    locked, form = _of(read_lock(lock), entry["key"], lock), entry.get("form", "webdataset")
    with resumable_dir(output, sha256(json.dumps([locked, form], sort_keys=True).encode())) as folder:
        scratch = folder / ".hub"
        for name in unfinished(sorted(locked["files"]), entry["key"], lambda name: folder / name):
            found = _fetched(locked["source"], locked["revision"], name, scratch)
            _check(found, locked["files"][name], f"{locked['source']}: {name}")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            found.replace(folder / name)
        shutil.rmtree(scratch, ignore_errors=True)
        if form == "captions-table":
            _convert(folder, locked["files"], entry["key"])


def read_lock(path: Path) -> dict:
    """The content of a lock. Raises UserError if there is none, or it holds a path that leads out of a folder."""
    try:
        locked = json.loads(path.read_text(encoding="utf-8"))
        names = [name for entry in locked.values() for name in entry["files"]]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        suite = path.name.removesuffix(".lock.json")
        raise UserError(
            f"{path} cannot be read ({reason(error)}); write it with a network, and look through it: python -m "
            f"clipdr.evaluate lock --suite {suite}"
        ) from None
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{path}: {name!r} leads out of the task folder; write the lock again")
    return locked


def _locked(entry: Mapping) -> dict:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    source, wanted = entry["source"], FORMS[entry.get("form", "webdataset")]
    try:
        revision = HfApi().dataset_info(source).sha
        tree = HfApi().list_repo_tree(source, repo_type="dataset", revision=revision, recursive=True)
        files = [file for file in tree if isinstance(file, RepoFile) and wanted(file.path)]
    except (OSError, ValueError) as error:  # its own errors are both
        raise _unreachable(source, error) from None
    if not files:
        raise UserError(f"{entry['key']}: {source} has no files of this form; correct `source` or `form` of the suite")
    return {"source": source, "revision": revision, "files": {f.path: _file(source, revision, f) for f in files}}


def _file(source: str, revision: str, file) -> dict:
    """Size and hash; of small files the hub keeps another hash, and so they are fetched and hashed here."""
    if file.lfs:
        return {"size": file.lfs.size, "sha256": file.lfs.sha256}
    return {"size": file.size, "sha256": sha256_file(_fetched(source, revision, file.path, None))}


def _fetched(source: str, revision: str, name: str, scratch: Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, name, repo_type="dataset", revision=revision, local_dir=scratch))
    except (OSError, ValueError) as error:
        raise _unreachable(f"{source}: {name}", error) from None


def _unreachable(what: str, error: Exception) -> UserError:
    return UserError(
        f"{what} cannot be fetched ({reason(error)}); check the network, then give the same command again: finished "
        "files are kept"
    )


def _check(path: Path, expected: Mapping, what: str) -> None:
    found = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    if found != expected:
        path.unlink()
        raise UserError(f"{what} has {found}, but the lock says {dict(expected)}; fetch it again, or look at the lock")


def _of(locked: Mapping, key: str, lock: Path) -> dict:
    if key not in locked:
        raise UserError(f"{lock} has no {key}; write the lock again, with a network")
    return locked[key]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _bytes(entry: Mapping) -> int:
    return sum(file["size"] for file in entry["files"].values())


def _convert(folder: Path, files: Mapping, key: str) -> None:
    """Make a retrieval task of a table and a zip, and drop both."""
    tables, archives = ([name for name in files if name.endswith(end)] for end in (".csv", ".zip"))
    if len(tables) != 1 or len(archives) != 1:
        raise UserError(f"{key}: one .csv and one .zip make a captions-table, not {listed(files)}; correct the suite")
    try:
        shutil.rmtree(folder / "test", ignore_errors=True)  # of a conversion that was killed
        write_task(folder, _captioned(folder / tables[0], folder / archives[0]), "retrieval")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, csv.Error) as error:
        raise UserError(
            f"{key}: {tables[0]} and {archives[0]} cannot be joined ({reason(error)}); a table has `filename`, and "
            "`raw` with a JSON list of captions"
        ) from None
    for name in files:
        (folder / name).unlink()


def _captioned(table: Path, archive: Path) -> Iterator[dict]:
    with zipfile.ZipFile(archive) as images, table.open(encoding="utf-8", newline="") as stream:
        member = {PurePosixPath(name).name: name for name in images.namelist() if not name.endswith("/")}
        for row in csv.DictReader(stream):
            captions = [" ".join(caption.split()) for caption in json.loads(row["raw"])]
            extension = PurePosixPath(row["filename"]).suffix.lower().removeprefix(".")
            yield {extension: images.read(member[row["filename"]]), "txt": "\n".join(captions).encode()}
