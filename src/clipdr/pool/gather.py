"""The chunks of a pool as one: links to their shards, and one index."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clipdr.data.manifest import MANIFEST, merged, write_manifest
from clipdr.errors import UserError
from clipdr.files import atomic_dir
from clipdr.progress import log

INDEX, SKIPPED = "index.parquet", "skipped.csv"
TEXT = pa.string()
SCHEMA = pa.schema(
    {"uid": TEXT, "shard": TEXT, "sha256": TEXT, "caption": TEXT, "texts": pa.list_(TEXT), "label": TEXT}
)


def gather(chunks: Sequence[Path], output: Path) -> None:
    """Write a folder that is read as the shards of a pool.

    The index has a row group per chunk, so that the lines of a run of shards are found without reading all.

    Args:
        chunks: folders that `clipdr.reinforce.join` wrote, of runs of shards in the order of their names.
        output: receives links, relative to it, `index.parquet`, `skipped.csv` and the manifest of all chunks.

    Raises:
        UserError: two chunks have a shard of the same name, or were not made in the same way.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_dir(output) as folder:
        with pq.ParquetWriter(folder / INDEX, SCHEMA) as writer:
            for chunk in chunks:
                writer.write_table(pq.read_table(chunk / INDEX).select(SCHEMA.names).cast(SCHEMA))
        for number, chunk in enumerate(chunks):
            skipped = pd.read_csv(chunk / SKIPPED, dtype=str)
            skipped.to_csv(folder / SKIPPED, mode="a", index=False, header=number == 0)
            for shard in sorted(chunk.glob("*.tar")):
                link = folder / shard.name
                if link.is_symlink():
                    raise UserError(f"{shard} stands in two chunks; delete {output.parent} and fetch it again")
                link.symlink_to(Path("..", shard.relative_to(output.parent)))
        manifest = merged(chunks, [Path()] * len(chunks))
        write_manifest(manifest, folder / MANIFEST)
    log.info("%d of %d samples of %d chunks", manifest["samples"], manifest["in"], len(chunks))
    for why, number in manifest["skipped"].items():
        log.warning("%d skipped: %s", number, why)
