"""What the workflow makes, each thing named after all that decides it.

A name is a readable slug and a hash of the settings and of the names of what the thing is made from, so that it covers
the whole chain behind it. Equal things are made once, whatever table or scale asks for them, and different ones never
overwrite each other. Pure functions, no files.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

SLUG_LENGTH = 160  # of the 255 characters of a file name; the hash follows


@dataclass(frozen=True)
class Artifact:
    """Something that one job makes, in `results/<path>/`.

    Attributes:
        stage: folder below results, such as `runs`.
        name: unique to `settings` and `inputs`.
        settings: what the job is told; JSON-able, the content of `settings.json`.
        inputs: what it is made from; a list where there are several of a kind.
    """

    stage: str
    name: str
    settings: dict = field(hash=False)
    inputs: dict = field(hash=False)

    @property
    def path(self) -> str:
        """Folder below results."""
        return f"{self.stage}/{self.name}"


def artifact(stage: str, slug: str, settings: Mapping, **inputs: Artifact | list[Artifact]) -> Artifact:
    """An artifact with its name. `slug` may hold a slash; settings that are no JSON raise ValueError or TypeError."""
    canonical = _canonical(settings)
    made_from = _canonical({key: _names(value) for key, value in inputs.items()})
    digest = hashlib.sha256(f"[{canonical},{made_from}]".encode()).hexdigest()[:8]
    # Read back: each artifact owns its settings, and they are exactly what a job gets as JSON.
    return Artifact(stage, f"{slug[:SLUG_LENGTH]}-{digest}", json.loads(canonical), inputs)


def all_of(artifacts: Iterable[Artifact]) -> dict[str, Artifact]:
    """Path -> artifact, of these and of everything that they are made from."""
    found: dict[str, Artifact] = {}
    for one in artifacts:
        if one.path not in found:
            found |= all_of(inputs_of(one))
            found[one.path] = one
    return found


def inputs_of(one: Artifact) -> Iterator[Artifact]:
    """What it is made from directly, one after the other."""
    for value in one.inputs.values():
        yield from value if isinstance(value, list) else [value]


def _names(value: Artifact | list[Artifact]) -> str | list[str]:
    return [one.path for one in value] if isinstance(value, list) else value.path


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
