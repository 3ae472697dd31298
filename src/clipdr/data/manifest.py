"""`manifest.json` of a reinforced dataset: its shards with their numbers of samples, and its teachers.

Each chunk has one, and so has the dataset as a whole, whose shards lie in the folders of its chunks.

| key | content |
|---|---|
| `samples` | how many there are |
| `in`, `skipped` | how many there were to be, and reason -> number of those left out; missing where none can be |
| `shards` | file, from the manifest's folder on -> number of samples, in order |
| `augmentation` | settings of the stored views |
| `embeddings` | as which they are stored: bfloat16 (also if it is missing), float32 or int8 |
| `teachers` | `name`, `width` and `logit_scale` of each, in the order of their slices |
| `models` | name -> SHA-256 of the weights of the models that were asked |
| `code` | fingerprint of the code that wrote it, see `clipdr.fingerprint` |

Synthetic captions have one of the same form, with their `settings`, and with numbers: `captions`, those that are
`distinct` for their image, and `equal_to_label` of those that are `labelled`.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.files import atomic_file

MANIFEST = "manifest.json"
NUMBERS = ("in", "samples", "captions", "distinct", "labelled", "equal_to_label")


def read_manifest(reinforced: Path) -> dict:
    """The manifest of a folder of shards.

    Raises UserError if it is missing, cut, or lacks a key, or if a teacher has no logit scale above 0.
    """
    manifest = _read(reinforced / MANIFEST, ("samples", "shards", "augmentation", "teachers"))
    for teacher in manifest["teachers"]:
        scale = teacher.get("logit_scale")
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise UserError(
                f"{reinforced / MANIFEST}: teacher {teacher.get('name')!r} has logit_scale {scale!r}; say there what "
                "its 1 / temperature is, without which nobody knows how sure it was"
            )
    return manifest


def merge(chunks: Sequence[Path], output: Path) -> None:
    """Write the manifest of a dataset, of which each chunk lies in a folder below.

    Raises:
        UserError: chunks that were not made in the same way.
    """
    write_manifest(merged(chunks, [chunk.relative_to(output.parent) for chunk in chunks]), output)


def merged(chunks: Sequence[Path], places: Sequence[Path]) -> dict:
    """The manifest of all chunks, whose shards are found at these places, from the folder of the manifest on."""
    whole: dict = {}
    for chunk, place in zip(chunks, places, strict=True):
        one = _read(chunk / MANIFEST, ("samples", "shards"))
        one["shards"] = {(place / shard).as_posix(): number for shard, number in one["shards"].items()}
        whole = _add(whole, one, chunk) if whole else one
    return whole


def write_manifest(manifest: dict, path: Path) -> None:
    """Write it as all are written, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n")


def _add(whole: dict, one: dict, chunk: Path) -> dict:
    both = {"shards": whole["shards"] | one["shards"]}
    both |= {key: whole[key] + one[key] for key in NUMBERS if key in one}
    if "skipped" in one:
        both["skipped"] = dict(sorted((Counter(whole["skipped"]) + Counter(one["skipped"])).items()))
    for key in one.keys() - both.keys():
        if one[key] != whole.get(key):
            raise UserError(
                f"{chunk / MANIFEST} has another {key!r} than the chunks before it; delete the folder and make it again"
            )
    return whole | both


def _read(path: Path, keys: Sequence[str]) -> dict:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in manifest]
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
