"""Reinforced shards read as a stream: nothing is held that grows with the dataset.

The readers are the workers of all processes; of each epoch's order of the shards every reader has a section of its own,
of equal length but for one sample, so that each sample is seen once whatever the number of processes and workers.
Within its section a reader shuffles blocks of `shuffle_buffer` samples. All of this is known from the manifest and the
seed before a byte is read, so a resumed run goes straight to its place. Reader r makes the batches of the steps r,
r + workers, … of its process; the order of samples depends on the number of readers. Where a dataset stores no views,
each image gets one that is drawn for its place in the step.

Shape suffixes: A views, B batch of this process, C channels, S side, E teacher width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch

from clipdr.batch import Batch, Teacher
from clipdr.data.augment import afresh, draw, replay
from clipdr.data.draws import ALL, EPOCH, First, draws, student_rngs, text_of, view_of
from clipdr.data.manifest import read_manifest, read_whole_shard
from clipdr.data.rows import FORM, Row, read_row
from clipdr.data.samples import check_unit
from clipdr.errors import UserError

BLOCK, FRESH = 2, 3  # streams of randomness beside those of clipdr.data.draws


@dataclass(frozen=True)
class Order:
    """In which order the samples of the shards are read: pure functions of the manifest and the seed.

    Attributes:
        shards: file name -> number of samples.
        readers: how many read, all workers of all processes.
        buffer: samples of a block that is shuffled.
    """

    shards: dict[str, int]
    seed: int
    readers: int
    buffer: int

    def epoch(self, epoch: int) -> list[str]:
        """All shards in an order of their own."""
        names = list(self.shards)
        return [names[i] for i in np.random.default_rng([self.seed, EPOCH, epoch]).permutation(len(names))]

    def section(self, reader: int) -> range:
        """Positions in each epoch that belong to a reader."""
        total = sum(self.shards.values())
        return range(total * reader // self.readers, total * (reader + 1) // self.readers)

    def blocks(self, reader: int, skip: int) -> Iterator[tuple[int, range, np.ndarray]]:
        """(epoch, positions, places within them in the order in which they are given), from the `skip`-th sample on."""
        section = self.section(reader)
        first, skip = divmod(skip, len(section))
        for epoch in count(first):
            for number in range(skip // self.buffer, -(-len(section) // self.buffer)):
                block = section[number * self.buffer : (number + 1) * self.buffer]
                order = np.random.default_rng([self.seed, BLOCK, epoch, reader, number]).permutation(len(block))
                yield epoch, block, order[max(skip - number * self.buffer, 0) :]
            skip = 0


class ShardBatches:
    """Batches from shards, as `clipdr.data.views.ViewBatches` gives them from memory.

    Args:
        rows: folder of shards and manifest in the form of `clipdr.data.rows`.
        size: side of the student's images, px.
        tokenizer: list of str -> int64 tokens.
        kinds: of texts, see `clipdr.data.draws.text_of`.
        teachers: those whose embeddings are kept.
        batch_size: of all processes together.
        seed: of the order and of all that is drawn.
        workers: processes that read for this one; 0 reads in this one.
        buffer: samples that each worker holds and shuffles.
        rank, world: this process and how many there are.
        first: how many of an image's views and captions are drawn from.
        student: ops that are drawn over each view at every step, see `clipdr.data.augment.afresh`; none if None.

    Raises:
        UserError: a teacher that the dataset lacks, or fewer shards than readers.
    """

    def __init__(
        self,
        rows: Path,
        size: int,
        tokenizer,
        kinds: list[str],
        teachers: list[str],
        batch_size: int,
        seed: int,
        workers: int,
        buffer: int,
        rank: int = 0,
        world: int = 1,
        first: First = ALL,
        student: dict | None = None,
    ) -> None:
        self.folder, self.size, self.tokenizer = rows, size, tokenizer
        self.kinds, self.teachers, self.batch_size, self.seed = kinds, teachers, batch_size, seed
        self.workers, self.rank, self.world = workers, rank, world
        self.first, self.student = first, student
        self.manifest = read_manifest(rows)
        if self.manifest.get("form") != FORM:
            raise UserError(f"{rows} is in the published form; bring it into rows with `python -m clipdr.data rows`")
        self.width = sum(teacher["width"] for teacher in self.manifest["teachers"])
        self.dtype = getattr(torch, self.manifest["dtype"])
        self.scales = {teacher["name"]: teacher["logit_scale"] for teacher in self.manifest["teachers"]}
        self.widths = {teacher["name"]: teacher["width"] for teacher in self.manifest["teachers"]}
        if missing := [name for name in teachers if name not in self.scales]:
            raise UserError(
                f"{rows} has no embeddings of teacher {missing[0]!r}; it has {', '.join(self.scales) or 'none'}: "
                "reinforce the dataset with all teachers of the scale"
            )
        self.fresh = self.manifest["augmentation"]["views"] == 0
        if self.fresh and teachers:
            raise UserError(
                f"{rows} stores no views, so teachers have no embeddings of them; take another augmentation, or "
                "an objective without teachers"
            )
        readers = max(workers, 1) * world
        if len(self.manifest["shards"]) < readers:
            raise UserError(
                f"{rows} has {len(self.manifest['shards'])} shards, fewer than {world} processes with "
                f"{max(workers, 1)} workers each; lower `training.workers` or `training.processes`, "
                "or write smaller shards"
            )
        self.order = Order(self.manifest["shards"], seed, readers, buffer)
        share = batch_size // world
        self.mine = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self.manifest["samples"]

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches of step `start` and all later ones, of this process."""
        loader = torch.utils.data.DataLoader(
            _Worker(self, start),
            batch_size=None,
            num_workers=self.workers,
            multiprocessing_context=_context(self.workers),
        )
        for batch in loader:
            if isinstance(batch, UserError):  # raised in a worker it would come with that one's traceback
                raise batch
            yield batch

    def read(self, start: int, worker: int) -> Iterator[Batch]:
        """Batches of the steps that a worker makes: every `workers`-th from `start` + `worker` on."""
        workers = max(self.workers, 1)
        first, share = start + worker, self.mine.stop - self.mine.start
        samples = self._samples(self.rank * workers + first % workers, first // workers * share)
        for step in count(first, workers):
            yield self._batch(list(islice(samples, share)), step)

    def _samples(self, reader: int, skip: int) -> Iterator[Row]:
        """The reader's samples in their order, from the `skip`-th on."""
        raw, at = iter(()), None  # the open epoch and the position in it
        for epoch, block, places in self.order.blocks(reader, skip):
            if at != (epoch, block.start):
                raw = self._raw(epoch, block.start)
            held = list(islice(raw, len(block)))
            at = (epoch, block.stop)
            for place in places:
                yield read_row(held[place], self.width, self.dtype)

    def _raw(self, epoch: int, position: int) -> Iterator[dict]:
        """The samples of an epoch as they lie in their shards, from a position on."""
        for shard in self.order.epoch(epoch):
            number = self.manifest["shards"][shard]
            if position < number:
                yield from islice(read_whole_shard(self.folder, shard, self.manifest), position, None)
            position = max(position - number, 0)

    def _batch(self, samples: list[Row], step: int) -> Batch:
        draws_B3 = draws(self.seed, step, self.batch_size)[self.mine]
        counts = self.first.of_texts(np.array([len(sample.texts) for sample in samples]))
        if counts.min() < 2 and set(self.kinds) & {"syn", "real-or-syn"}:
            bare = samples[int(counts.argmin())].uid
            raise UserError(f"{self.folder}: sample {bare} has no synthetic captions; caption the dataset first")
        stored = np.array([len(sample.augmentations) for sample in samples])
        view = view_of(draws_B3, self.first.of_views(stored))
        columns = {kind: text_of(kind, draws_B3, counts) for kind in self.kinds}
        img_BCSS = np.stack(
            [
                self._pixels(sample, a, step, position)
                for position, (sample, a) in enumerate(zip(samples, view, strict=True), self.mine.start)
            ]
        )
        if self.student:
            img_BCSS = afresh(img_BCSS, self.student, student_rngs(self.seed, step, self.mine))
        texts = {
            kind: self.tokenizer([sample.texts[t] for sample, t in zip(samples, column, strict=True)])
            for kind, column in columns.items()
        }
        images = {"image": torch.from_numpy(img_BCSS)}
        return Batch([sample.uid for sample in samples], images, texts, self._teachers(samples, view, columns))

    def _teachers(self, samples: list[Row], view: np.ndarray, columns: dict[str, np.ndarray]) -> dict[str, Teacher]:
        """The embeddings of the view and of the text of each kind that each sample comes in."""
        if not self.teachers:
            return {}
        img = self._embeddings(samples, [sample.view(a) for sample, a in zip(samples, view, strict=True)])
        txt = {
            kind: self._embeddings(samples, [sample.text(t) for sample, t in zip(samples, column, strict=True)])
            for kind, column in columns.items()
        }
        return {
            name: Teacher({"image": img[name]}, {kind: emb[name] for kind, emb in txt.items()}, self.scales[name])
            for name in self.teachers
        }

    def _embeddings(self, samples: list[Row], rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Teacher -> float32 [B, E] of one row of each sample."""
        uids, teachers = [sample.uid for sample in samples], self.manifest["teachers"]
        parts = torch.stack(rows).float().split([teacher["width"] for teacher in teachers], 1)
        found = {teacher["name"]: part for teacher, part in zip(teachers, parts, strict=True)}
        for name in self.teachers:
            check_unit(found[name], uids, name)
        return {name: found[name].contiguous() for name in self.teachers}

    def _pixels(self, sample: Row, stored: int, step: int, position: int) -> np.ndarray:
        """uint8 [C, S, S] of a stored view, or of one that is drawn for this position of this step."""
        image = sample.image
        if self.fresh:
            rng = np.random.default_rng([self.seed, FRESH, step, position])
            entry = draw(rng, *image.size, {**self.manifest["augmentation"], "image_size": self.size})
        elif sample.augmentations:
            entry = sample.augmentations[stored]
        else:
            raise UserError(f"{self.folder}: sample {sample.uid} has no stored views; reinforce the dataset again")
        return np.asarray(replay(image, entry, self.size)).transpose(2, 0, 1)


class _Worker(torch.utils.data.IterableDataset):
    def __init__(self, batches: ShardBatches, start: int) -> None:
        self.batches, self.start = batches, start

    def __iter__(self) -> Iterator[Batch | UserError]:
        info = torch.utils.data.get_worker_info()
        try:
            yield from self.batches.read(self.start, info.id if info else 0)
        except UserError as error:
            yield error


def _context(workers: int) -> str | None:
    """Workers are forked: they share what is loaded, and inherit the tokenizer as it is."""
    return "fork" if workers else None
