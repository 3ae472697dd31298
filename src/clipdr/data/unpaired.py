"""Texts that do not belong to the images of a batch: as teachers embed them, in an order of their own.

Shapes: B images, and as many texts, of this process, E width of a teacher.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from clipdr.batch import Batch
from clipdr.data.draws import CORPUS
from clipdr.data.samples import check_unit
from clipdr.data.views import epoch_batch
from clipdr.errors import UserError
from clipdr.train.parallel import World

KIND = "unpaired"  # of such texts


class UnpairedTexts:
    """Batches of `source`, in which teachers have texts of a corpus. Its epochs are permutations, as the images' are.

    Args:
        source: has `batches(start)` and `widths`, as `clipdr.data.views.ViewBatches`; its batches have no texts.
        corpus: folder of `clipdr.corpus.select`.
        teachers: whose embeddings are read.
        batch_size: of all processes together.
        seed: of the order.

    Raises:
        UserError: the corpus was not embedded by a teacher, not as wide as its images, or is smaller than a batch.
    """

    def __init__(
        self, source, corpus: Path | None, teachers: Sequence[str], batch_size: int, seed: int, world: World
    ) -> None:
        if corpus is None:
            raise UserError("data.texts names a corpus, but --corpus names no folder; give it")
        self.source, self.widths, self.corpus = source, source.widths, corpus
        self.batch_size, self.seed, share = batch_size, seed, batch_size // world.size
        self.mine = slice(world.rank * share, (world.rank + 1) * share)
        self.texts = {name: _read(corpus, name, source.widths[name]) for name in teachers}
        self.number = len(next(iter(self.texts.values())))
        if self.number < batch_size:
            raise UserError(
                f"{corpus} has {self.number} texts, fewer than a batch of {batch_size}; lower `training.batch_size`, "
                "or choose more texts"
            )

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches of step `start` and all later ones, of this process."""
        for step, batch in zip(count(start), self.source.batches(start), strict=False):
            yield self.with_texts(batch, step)

    def with_texts(self, batch: Batch, step: int) -> Batch:
        """The batch, whose teachers have the texts of a step."""
        rows_B = epoch_batch(self.number, self.batch_size, self.seed, step, CORPUS)[self.mine]
        found = {}
        for name, teacher in batch.teachers.items():
            emb_BE = torch.from_numpy(self.texts[name][rows_B].astype(np.float32))
            check_unit(emb_BE, [f"text {row} of {self.corpus}" for row in rows_B], name)
            found[name] = replace(teacher, texts={KIND: emb_BE})
        return replace(batch, teachers=found)


def _read(corpus: Path, name: str, width: int) -> np.ndarray:
    try:
        number = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))["texts"]
        texts = np.load(corpus / f"{name}.npy", mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{corpus} has no embeddings of teacher {name!r} ({error!r:.80}); build it again") from None
    if texts.shape != (number, width):
        raise UserError(
            f"{corpus}: teacher {name!r} has {texts.shape[0]} texts of width {texts.shape[-1]}, but the corpus says "
            f"{number}, and its images have {width}; embed images and texts by one teacher"
        )
    return texts
