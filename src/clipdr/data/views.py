"""Augmented views as arrays that many runs map into memory, and batches of them.

Decoding and augmenting an image costs more than a training step on it at miniature size, so stored views are replayed
once and shared.

Everything random about step n is derived from (seed, n), never from the state of a generator.

Shape suffixes: N images, A views, T texts (real first, then synthetic), C channels, S side, E teacher width, B batch.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipdr.batch import Batch, Teacher
from clipdr.data.augment import view_array
from clipdr.data.samples import MANIFEST, decode
from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.files import atomic_dir, sha256_file

META = "views.json"
EPOCH, STEP = 0, 1  # streams of randomness: one generator per epoch and one per step
REAL = 0  # column of the real caption; synthetic captions follow


@dataclass(frozen=True)
class Views:
    """A materialised reinforced dataset.

    Attributes:
        uids: of the images.
        img_NACSS: uint8, 0 … 255.
        texts: per image, the real caption followed by the synthetic ones.
        teachers: per teacher, name -> (image embeddings [N, A, E], text embeddings [N, T, E], 1 / temperature).
    """

    uids: list[str]
    img_NACSS: np.ndarray
    texts: list[list[str]]
    teachers: dict[str, tuple[np.ndarray, np.ndarray, float]]

    def __len__(self) -> int:
        return len(self.img_NACSS)


def materialise(reinforced: Path, size: int, output: Path) -> None:
    """Write the views of a reinforced dataset as a folder that `load_views` reads.

    `size` is the side, in px, of the images that a student reads; teachers saw the same boxes and ops at a size of
    their own, as in the paper, where students of 256 px learn from teachers of 224 px.
    """
    views = read_views(reinforced, size)
    with atomic_dir(output) as folder:
        save_views(views, folder)


def read_views(reinforced: Path, size: int) -> Views:
    """Replay all views of a reinforced dataset at `size` × `size` px, in the order of its shards."""
    manifest = json.loads((reinforced / MANIFEST).read_text())
    samples = [decode(sample) for shard in manifest["shards"] for sample in read_shard(reinforced / shard)]
    img_NACSS = np.stack([view_array(sample.image, sample.augmentations, size) for sample in samples])
    texts = [[sample.caption, *sample.synthetic] for sample in samples]
    img_NAE = np.stack([sample.img_AE.float().numpy() for sample in samples])
    txt_NTE = np.stack([sample.txt_SE.float().numpy() for sample in samples])
    teachers = dict(_slices(img_NAE, txt_NTE, manifest["teachers"]))
    return Views([sample.uid for sample in samples], img_NACSS, texts, teachers)


def save_views(views: Views, folder: Path) -> None:
    """Write `images.npy`, `texts.json`, `views.json` and, per teacher, `<name>.image.npy` and `<name>.text.npy`.

    `views.json` has the uids, the teachers' scales and the hash of each file, so that who reads the arrays need not.
    """
    np.save(folder / "images.npy", views.img_NACSS)
    (folder / "texts.json").write_text(json.dumps(views.texts))
    for name, (img_NAE, txt_NTE, _) in views.teachers.items():
        np.save(folder / f"{name}.image.npy", img_NAE)
        np.save(folder / f"{name}.text.npy", txt_NTE)
    scales = {name: scale for name, (_, _, scale) in views.teachers.items()}
    digests = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    meta = {"uids": views.uids, "teachers": scales, "sha256": digests}
    (folder / META).write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")


def load_views(folder: Path, teachers: list[str]) -> Views:
    """Map a folder of `save_views` into memory, with the named teachers only.

    Raises:
        UserError: a teacher whose embeddings were not stored.
    """
    meta = json.loads((folder / META).read_text())
    scales = meta["teachers"]
    if missing := [name for name in teachers if name not in scales]:
        raise UserError(
            f"{folder} has no embeddings of teacher {missing[0]!r}; it has {', '.join(scales) or 'none'}: "
            "reinforce the dataset with all teachers of the scale"
        )
    arrays = {
        name: (np.load(folder / f"{name}.image.npy"), np.load(folder / f"{name}.text.npy"), scales[name])
        for name in teachers
    }
    images, texts = np.load(folder / "images.npy", mmap_mode="r"), json.loads((folder / "texts.json").read_text())
    return Views(meta["uids"], images, texts, arrays)


def view_batches(
    views: Views, tokens: "TokenTable", kinds: list[str], batch_size: int, seed: int, start: int = 0
) -> Iterator[Batch]:
    """Batches of step `start` and all later ones: each image in one random stored view, with one text of each kind.

    Args:
        kinds: `real` is the real caption, `syn` a random synthetic one, `any` a random one of all.
        seed: of the order of the images and of all that is drawn.
    """
    step = start
    while True:
        rng = step_rng(seed, step)
        rows = epoch_batch(len(views), batch_size, seed, step)
        view = rng.integers(views.img_NACSS.shape[1], size=batch_size)
        columns = {kind: _column(kind, tokens.counts[rows], rng) for kind in kinds}
        teachers = {
            name: Teacher(
                {"image": torch.from_numpy(img_NAE[rows, view])},
                {kind: torch.from_numpy(txt_NTE[rows, column]) for kind, column in columns.items()},
                scale,
            )
            for name, (img_NAE, txt_NTE, scale) in views.teachers.items()
        }
        images = {"image": torch.from_numpy(np.ascontiguousarray(views.img_NACSS[rows, view]))}
        texts = {kind: tokens.pick(rows, column) for kind, column in columns.items()}
        yield Batch([views.uids[row] for row in rows], images, texts, teachers)
        step += 1


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of all that is drawn for one step: views, captions."""
    return np.random.default_rng([seed, STEP, step])


def epoch_batch(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Sample indices of step `step` (from 0), int64 [batch_size]: epochs are permutations drawn from (seed, epoch)."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {epoch: _epoch_order(size, seed, epoch) for epoch in np.unique(positions // size).tolist()}
    return np.array([orders[position // size][position % size] for position in positions.tolist()])


@lru_cache(maxsize=2)  # the epoch of the last step and the next one: a permutation of 12.8 M samples takes 0.8 s
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, EPOCH, epoch]).permutation(size)


class TokenTable:
    """Texts of every image, tokenised once: `pick(rows, columns)` gives int64 tokens [B, context]."""

    def __init__(self, tokenizer, texts: list[list[str]]) -> None:
        self._starts = np.cumsum([0, *(len(row) for row in texts[:-1])])
        self.counts = np.array([len(row) for row in texts])
        self._tokens = tokenizer([text for row in texts for text in row])

    def pick(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        return self._tokens[torch.from_numpy(self._starts[rows] + columns)]


def _column(kind: str, counts_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which text of each image is taken: its column, int64 [B]."""
    match kind:
        case "real":
            return np.full(len(counts_B), REAL)
        case "syn":
            return rng.integers(REAL + 1, np.maximum(counts_B, REAL + 2))
        case "any":
            return rng.integers(counts_B)
    raise ValueError(f"{kind!r} is no kind of texts")


def _slices(img_NAE: np.ndarray, txt_NTE: np.ndarray, teachers: list[dict]):
    start = 0
    for teacher in teachers:
        columns = slice(start, start + teacher["width"])
        yield teacher["name"], (img_NAE[..., columns].copy(), txt_NTE[..., columns].copy(), teacher["logit_scale"])
        start = columns.stop
