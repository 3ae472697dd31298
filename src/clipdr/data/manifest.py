"""`manifest.json` of a reinforced dataset: its shards with their numbers of samples, and its teachers.

| key | content |
|---|---|
| `samples` | how many there are |
| `in`, `skipped` | how many there were to be, and reason -> number of those left out; missing where none can be |
| `shards` | file name -> number of samples, in order |
| `augmentation` | settings of the stored views |
| `embeddings` | as which they are stored: bfloat16 (also if it is missing), float32 or int8 |
| `teachers` | `name`, `width` and `logit_scale` of each, in the order of their slices |
"""

import json
from collections.abc import Iterator
from pathlib import Path

from clipdr.data.shards import read_shard
from clipdr.errors import UserError

MANIFEST = "manifest.json"


def read_manifest(reinforced: Path) -> dict:
    """The manifest of a folder of shards. Raises UserError if it is missing, cut, or lacks a key."""
    path = reinforced / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in ("samples", "shards", "augmentation", "teachers") if key not in manifest]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; reinforce the dataset again") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete its folder and reinforce again") from None
    if missing:
        raise UserError(f"{path} has no {missing[0]!r}; delete its folder and reinforce again")
    return manifest


def read_whole_shard(reinforced: Path, shard: str, manifest: dict) -> Iterator[dict]:
    """Yield the samples of a shard. Raises UserError at its end if they are not as many as the manifest says."""
    seen: set[str] = set()
    number = 0
    for sample in read_shard(reinforced / shard):
        number += 1
        seen.add(sample["__key__"])
        yield sample
    if number != manifest["shards"][shard] or len(seen) != number:
        raise UserError(
            f"{reinforced / shard} holds {number} samples ({len(seen)} different ones), but the manifest says "
            f"{manifest['shards'][shard]}; delete its folder and reinforce again"
        )
