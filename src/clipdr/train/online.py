"""Teachers and a captioner that are asked at every step, for what a dataset does not store.

This is distillation without dataset reinforcement, which MobileCLIP's Table 4d compares with: the same losses, of
embeddings and captions that are made while the student waits. What the dataset stores of them is not read.

Shape suffixes: B pairs of this process, C channels, S image side, L context length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from clipdr.batch import Batch, Teacher
from clipdr.errors import UserError
from clipdr.models.load import load_model
from clipdr.reinforce import embed
from clipdr.reinforce.captions import generate
from clipdr.train.parallel import World

CAPTION = 4  # stream of randomness, beside those of clipdr.data
PROBE = "a café, 2 cats"


class Online:
    """Batches of `source` with synthetic captions, embeddings or both added to them.

    Args:
        source: has `batches(start)` and `widths`, as `clipdr.data.views.ViewBatches`; its batches lack what is added
            here.
        tokenize: the student's, list of str -> int64 tokens [N, L].
        settings: what is asked, a run's `online`: names of `teachers`, settings of `captions`, or both.
        teachers: their model folders, in the order of their names.
        captioner: its model folder.
        seed: of the captions, with the step and the place in its batch.

    Raises:
        UserError: a model that the settings ask is not given, or a teacher splits texts into other tokens than the
            student.
    """

    def __init__(
        self,
        source,
        tokenize,
        settings: dict,
        teachers: Sequence[Path],
        captioner: Path | None,
        seed: int,
        world: World,
    ) -> None:
        self.source, self.tokenize, self.settings, self.seed, self.world = source, tokenize, settings, seed, world
        names, device = settings.get("teachers", []), str(world.device)
        if len(names) != len(teachers) or ("captions" in settings) != (captioner is not None):
            raise UserError(
                f"the run asks teachers {', '.join(names) or 'none'} and {'a' if 'captions' in settings else 'no'} "
                f"captioner, but --teachers names {len(teachers)} folders and --captioner "
                f"{'one' if captioner else 'none'}; give what it asks"
            )
        self.teachers = [embed.Teacher(name, folder, device) for name, folder in zip(names, teachers, strict=True)]
        self.widths = source.widths | {teacher.name: teacher.width for teacher in self.teachers}
        self.captioner = load_model(captioner, device) if captioner else None
        ours = tokenize([PROBE])
        for teacher in self.teachers:
            if not torch.equal(teacher.model.tokenizer.cut([PROBE]), ours):
                raise UserError(
                    f"data.online: teacher {teacher.name!r} splits texts into other tokens than the student; store its "
                    "embeddings instead"
                )

    def batches(self, start: int) -> Iterator[Batch]:
        for step, batch in zip(count(start), self.source.batches(start), strict=False):
            yield self.ask(batch.map(lambda tensor: tensor.to(self.world.device)), step)

    def ask(self, batch: Batch, step: int) -> Batch:
        """The batch, with what the models say of it."""
        if self.captioner:
            texts = batch.texts | {"syn": self._captions(batch.images["image"], step)}
            batch = replace(batch, texts=dict(sorted(texts.items())))  # in the order that stored captions have
        found = {
            teacher.name: Teacher(
                {name: teacher.pixels(img_BCSS) for name, img_BCSS in batch.images.items()},
                {kind: teacher.tokens(tokens_BL) for kind, tokens_BL in batch.texts.items()},
                teacher.scale,
            )
            for teacher in self.teachers
        }
        return replace(batch, teachers=batch.teachers | found)

    def _captions(self, img_BCSS: Tensor, step: int) -> Tensor:
        """One caption per image as the student's tokens [B, L]."""
        first = self.world.rank * len(img_BCSS)
        seeds = [[self.seed, CAPTION, step, first + position] for position in range(len(img_BCSS))]
        img = embed.to_input(img_BCSS, self.captioner)
        texts = generate(self.captioner, img, self.settings["captions"], seeds, 1)
        return self.tokenize([text for (text,) in texts]).to(img.device)
