"""What one sees of a training run: lines of JSON as it goes, TensorBoard files if asked for.

A record has the step, `samples` seen, `loss` and its parts, `lr`, `logit_scale`, `grad_norm`, per teacher and kind of
texts the `agreement` of teacher and student, of each mixture of experts its `routing`, and of this machine:
`samples_per_second`, `data_share` (of the time, spent waiting for batches) and `memory_mb`. All but the last three
follow from settings and data.
"""

import json
import resource
import time
from pathlib import Path

import torch
from torch import nn

from clipdr.batch import Embeddings
from clipdr.errors import UserError
from clipdr.models.moe import MixtureOfExperts
from clipdr.progress import log
from clipdr.train.log import LOG, read_log

OF_THE_MACHINE = ("samples_per_second", "data_share", "memory_mb")


class Watch:
    """Writes records below `folder`, from `step` on: what a killed process wrote after its last save goes."""

    def __init__(self, folder: Path, step: int, batch_size: int, tensorboard: Path | None = None) -> None:
        self.path, self.batch_size, self.writer = folder / LOG, batch_size, _writer(tensorboard, step)
        kept = [record for record in read_log(self.path) if record["step"] <= step]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self.since, self.step, self.waited = time.monotonic(), step, 0.0

    def record(self, step: int, values: dict[str, float], device: torch.device) -> None:
        """One line, and the time since the last one."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        record = {"step": step, "samples": step * self.batch_size}
        record |= {name: round(value, 6) for name, value in values.items()}
        record["samples_per_second"] = round((step - self.step) * self.batch_size / seconds, 1)
        record["data_share"] = round(self.waited / seconds, 3)
        record["memory_mb"] = memory_mb(device)
        with self.path.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        if self.writer:
            for name, value in record.items():
                self.writer.add_scalar(name, value, step)
            self.writer.flush()
        self.since, self.step, self.waited = time.monotonic(), step, 0.0


def agreement(seen: Embeddings) -> dict[str, float]:
    """By teacher and kind of texts, the share of this process's images for which both find the same text."""
    found = {}
    for name, teacher in seen.teachers.items():
        for kind in teacher.texts.keys() & seen.texts.keys():
            theirs = (teacher.images["image"][seen.rows] @ teacher.texts[kind].T).argmax(dim=1)
            ours = (seen.images["image"][seen.rows] @ seen.texts[kind].T).argmax(dim=1)
            found[f"agreement/{kind}/{name}"] = (theirs == ours).float().mean().item()
    return dict(sorted(found.items()))


def routing(model: nn.Module) -> dict[str, float]:
    """How the mixtures of a model used their experts in the last step, by tower and block.

    `dropped` and `load/<expert>` are shares of all choices, `entropy` (nats) and `z` means over tokens.
    """
    found = {}
    for name, mixture in model.named_modules():
        if not isinstance(mixture, MixtureOfExperts):
            continue
        tower, block = name.split(".")[0], name.split(".")[-2]
        where = f"routing/{'image' if tower == 'visual' else tower}.{block}"
        found |= {f"{where}/dropped": float(mixture.dropped), f"{where}/entropy": float(mixture.spread)}
        found[f"{where}/z"] = float(mixture.losses["z"].detach())
        found |= {f"{where}/load/{expert}": share for expert, share in enumerate(mixture.load.tolist())}
    return found


def warn_of_dead_experts(what: str, record: dict[str, float]) -> None:
    """Say which experts no token of a record's step has chosen."""
    dead = [name.removeprefix("routing/") for name, share in record.items() if "/load/" in name and share == 0]
    if dead:
        log.warning("%s: no token of the last step chose these experts: %s", what, ", ".join(dead))


def memory_mb(device: torch.device) -> int:
    """Most memory that was in use so far: on the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _writer(folder: Path | None, step: int):
    if folder is None:
        return None
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard: the package tensorboardX is missing; pip install tensorboardX") from None
    return SummaryWriter(str(folder), purge_step=step + 1)
