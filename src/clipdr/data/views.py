"""Augmented views as arrays that many runs map into memory.

Decoding and augmenting an image costs more than a training step on it at miniature size, so stored views are replayed
once and shared.

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
from clipdr.data.augment import afresh, view_array
from clipdr.data.draws import ALL, EPOCH, First, draws, student_rngs, text_of, view_of
from clipdr.data.manifest import read_manifest, read_whole_shard
from clipdr.data.samples import check_image, decode, decode_image, slices
from clipdr.errors import UserError
from clipdr.files import atomic_dir, sha256_file

META = "views.json"


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
    """Replay all views of a reinforced dataset at `size` × `size` px, in the order of its shards.

    Raises:
        UserError: what the manifest says is not what the shards hold, or not as many views or texts as elsewhere.
    """
    manifest = read_manifest(reinforced)
    members = [sample for shard in manifest["shards"] for sample in read_whole_shard(reinforced, shard, manifest)]
    samples = [decode(sample) for sample in members]
    for sample in members:
        check_image(sample)
    for what, numbers in (
        ("views", [len(sample.augmentations) for sample in samples]),
        ("synthetic captions", [len(sample.synthetic) for sample in samples]),
    ):
        if len(set(numbers)) > 1:
            raise UserError(
                f"{reinforced}: images have between {min(numbers)} and {max(numbers)} {what}, but an array needs "
                "one number; train with `source: stream`, or reinforce again"
            )
    names = [teacher["name"] for teacher in manifest["teachers"]]
    emb = [slices(sample, manifest["teachers"], names) for sample in samples]
    teachers = {
        teacher["name"]: (
            np.stack([one[teacher["name"]][0].numpy() for one in emb]),
            np.stack([one[teacher["name"]][1].numpy() for one in emb]),
            teacher["logit_scale"],
        )
        for teacher in manifest["teachers"]
    }
    img_NACSS = np.stack(
        [
            view_array(decode_image(one), sample.augmentations, size)
            for one, sample in zip(members, samples, strict=True)
        ]
    )
    texts = [[sample.caption, *sample.synthetic] for sample in samples]
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
    try:
        meta = json.loads((folder / META).read_text())
        scales, names = meta["teachers"], meta["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / META} cannot be read ({error!r}); delete the folder and materialise again"
        ) from None
    if missing := [name for name in teachers if name not in scales]:
        raise UserError(
            f"{folder} has no embeddings of teacher {missing[0]!r}; it has {', '.join(scales) or 'none'}: "
            "reinforce the dataset with all teachers of the scale"
        )
    try:
        arrays = {
            name: (np.load(folder / f"{name}.image.npy"), np.load(folder / f"{name}.text.npy"), scales[name])
            for name in teachers
        }
        images, texts = np.load(folder / "images.npy", mmap_mode="r"), json.loads((folder / "texts.json").read_text())
    except (OSError, ValueError, EOFError) as error:  # among them arrays that are pickles, which are never read
        raise UserError(
            f"{folder}: {', '.join(names)} cannot all be read ({error}); delete it and materialise again"
        ) from None
    return Views(meta["uids"], images, texts, arrays)


class ViewBatches:
    """Batches from memory: `batches(start)` gives those of step `start` and all later ones, of one process.

    Each image comes in one random stored view, with one text of each kind. Epochs are permutations; a batch may cross
    the border between two.

    Args:
        kinds: of texts, see `clipdr.data.draws.text_of`.
        batch_size: of all processes together.
        seed: of the order of the images and of all that is drawn.
        rank, world: this process and how many there are; each takes its share of the global batch.
        first: how many of an image's views and captions are drawn from.
        student: ops that are drawn over each view at every step, see `clipdr.data.augment.afresh`; none if None.

    Attributes:
        widths: of the embeddings of each teacher.
    """

    def __init__(
        self,
        views: Views,
        tokenizer,
        kinds: list[str],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first: First = ALL,
        student: dict | None = None,
    ) -> None:
        self.views, self.tokens, self.kinds = views, TokenTable(tokenizer, views.texts), kinds
        self.first, self.student = first, student
        self.batch_size, self.seed, share = batch_size, seed, batch_size // world
        self.mine = slice(rank * share, (rank + 1) * share)
        self.widths = {name: img_NAE.shape[-1] for name, (img_NAE, _, _) in views.teachers.items()}

    def batches(self, start: int) -> Iterator[Batch]:
        step = start
        while True:
            yield self.batch(self.rows(step)[self.mine], step)
            step += 1

    def rows(self, step: int) -> np.ndarray:
        """Which images the global batch of a step holds: int64 [batch_size]."""
        return epoch_batch(len(self.views), self.batch_size, self.seed, step)

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """The batch of these images, with what is drawn for this process at a step."""
        views, draws_B3 = self.views, draws(self.seed, step, self.batch_size)[self.mine]
        view = view_of(draws_B3, self.first.of_views(views.img_NACSS.shape[1]))
        counts = self.first.of_texts(self.tokens.counts[rows])
        columns = {kind: text_of(kind, draws_B3, counts) for kind in self.kinds}
        teachers = {
            name: Teacher(
                {"image": torch.from_numpy(img_NAE[rows, view])},
                {kind: torch.from_numpy(txt_NTE[rows, column]) for kind, column in columns.items()},
                scale,
            )
            for name, (img_NAE, txt_NTE, scale) in views.teachers.items()
        }
        img_BCSS = np.ascontiguousarray(views.img_NACSS[rows, view])
        if self.student:
            img_BCSS = afresh(img_BCSS, self.student, student_rngs(self.seed, step, self.mine))
        images = {"image": torch.from_numpy(img_BCSS)}
        texts = {kind: self.tokens.pick(rows, column) for kind, column in columns.items()}
        return Batch([views.uids[row] for row in rows], images, texts, teachers)


def epoch_batch(size: int, batch_size: int, seed: int, step: int, stream: int = EPOCH) -> np.ndarray:
    """Sample indices of step `step` (from 0), int64 [batch_size]: epochs are permutations drawn from (seed, epoch).

    `stream` is that of the permutations: images and texts that do not belong to them are in orders of their own.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // size
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs).tolist():
        rows[epochs == epoch] = _epoch_order(size, seed, epoch, stream)[positions[epochs == epoch] % size]
    return rows


@lru_cache(maxsize=4)  # of two streams, the epoch of the last step and the next one: 12.8 M samples take 0.8 s
def _epoch_order(size: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    return np.random.default_rng([seed, stream, epoch]).permutation(size)


class TokenTable:
    """Texts of every image, tokenised once: `pick(rows, columns)` gives int64 tokens [B, context]."""

    def __init__(self, tokenizer, texts: list[list[str]]) -> None:
        self._starts = np.cumsum([0, *(len(row) for row in texts[:-1])])
        self.counts = np.array([len(row) for row in texts])
        self._tokens = tokenizer([text for row in texts for text in row])

    def pick(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        return self._tokens[torch.from_numpy(self._starts[rows] + columns)]
