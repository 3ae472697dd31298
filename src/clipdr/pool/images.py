"""Fetch the images of published reinforcements from their addresses, with img2dataset.

Bytes are kept as they came: the teachers saw those, and stored crops are in their pixels. What was fetched is checked
when it is joined; here every address is accounted for.
"""

import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.files import atomic_file, reason, resumable_dir, sha256, stamps
from clipdr.fingerprint import own
from clipdr.progress import log, progress

DEFAULTS = {"processes": 1, "threads": 64, "timeout": 10, "retries": 2}
ADDRESS = "url.txt"


def download_images(reinforcements: Path, settings: dict, output: Path) -> None:
    """Fetch the images of all shards, one after the other; shards that were finished before a kill are kept.

    Args:
        reinforcements: folder of published shards.
        settings: `captions`, parquet with `uid` and `text`, and how `images` are fetched: processes, threads, timeout
            (s), retries.
        output: receives `<shard>/*.tar` as img2dataset writes them, with `uid` in each sample's json, and
            `<shard>.csv` with what came of each address: uid, url, status.

    Raises:
        UserError: a shard or the captions cannot be read, or img2dataset left addresses untried.
    """
    shards = sorted(path.name for path in reinforcements.glob("*.tar"))
    token = sha256(json.dumps([own(__name__), settings, stamps(reinforcements, shards)], sort_keys=True).encode())
    asked, statuses = DEFAULTS | settings.get("images", {}), Counter()
    with resumable_dir(output, token) as folder:
        left = [shard for shard in shards if not (folder / _report(shard)).is_file()]
        addresses = {shard: _addresses(reinforcements / shard) for shard in left}
        texts = _captions(Path(settings["captions"]), (uid for table in addresses.values() for uid in table["uid"]))
        for shard in progress(left, f"{output.name}: shards", len(left)):
            table = addresses[shard].assign(text=addresses[shard]["uid"].map(texts).fillna(""))
            found = _fetch(table, folder / shard.removesuffix(".tar"), asked)
            with atomic_file(folder / _report(shard)) as path:
                found.to_csv(path, index=False)
        for shard in shards:
            statuses.update(pd.read_csv(folder / _report(shard), dtype=str)["status"])
    for status, number in statuses.most_common():
        log.info("%d of %d addresses: %s", number, statuses.total(), status)


def _report(shard: str) -> str:
    return f"{shard.removesuffix('.tar')}.csv"


def _addresses(path: Path) -> pd.DataFrame:
    """`uid` and `url` of the samples of a shard that have one."""
    rows = []
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                uid, _, extension = Path(member.name).name.partition(".")
                if member.isfile() and extension == ADDRESS:
                    rows.append((uid, tar.extractfile(member).read().decode().strip()))
    except (OSError, EOFError, UnicodeDecodeError, tarfile.TarError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); delete its folder and fetch it again") from None
    return pd.DataFrame(rows, columns=["uid", "url"])


def _captions(source: Path, uids: Iterable[str]) -> dict[str, str]:
    """uid -> caption, of these uids. All files are read, but nothing else is held of them."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
        chosen = ds.field("uid").isin(pa.array(list(uids), pa.string()))
        table = ds.dataset(files).to_table(columns=["uid", "text"], filter=chosen)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own are ValueErrors and KeyErrors
        raise UserError(
            f"pool.captions: {source} cannot be read ({reason(error)}); name a parquet file with uid and text, or a "
            "folder of them"
        ) from None
    return dict(zip(table["uid"].to_pylist(), table["text"].to_pylist(), strict=True))


def _fetch(table: pd.DataFrame, folder: Path, asked: dict) -> pd.DataFrame:
    """Fetch the addresses of a shard into a folder: uid, url and status, `success` or what went wrong."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # a package of img2dataset's asks the network for news of itself
    try:
        from img2dataset import download
    except ImportError:
        raise UserError(
            "img2dataset is not installed here; run `make .venv-download/.installed`, or let Snakemake make the "
            "environment with --software-deployment-method conda"
        ) from None
    shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
    urls = folder.with_name(f".{folder.name}.parquet")
    table.to_parquet(urls, index=False)
    download(
        url_list=str(urls),
        input_format="parquet",
        output_format="webdataset",
        output_folder=str(folder),
        url_col="url",
        caption_col="text",
        save_additional_columns=["uid"],
        disable_all_reencoding=True,
        extract_exif=False,
        processes_count=asked["processes"],
        thread_count=asked["threads"],
        timeout=asked["timeout"],
        retries=asked["retries"],
    )
    urls.unlink()
    found = [pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    done = pd.concat(found) if found else pd.DataFrame({"uid": [], "status": [], "error_message": []})
    if missing := sorted(set(table["uid"]) - set(done["uid"])):
        raise UserError(
            f"{folder.name}: img2dataset left {len(missing)} of {len(table)} addresses untried, first that of "
            f"{missing[0]}; give the same command again: finished shards are kept"
        )
    status = done["status"].where(done["status"] == "success", done["error_message"].fillna(done["status"]))
    return done[["uid", "url"]].assign(status=status.map(lambda text: " ".join(str(text).split())))
