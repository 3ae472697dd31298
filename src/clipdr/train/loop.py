"""The training loop: batches in, a trained student out, free of any one loss.

The loop embeds every image and text of a batch, hands the embeddings to the objective, and adds up and logs the parts
that come back. Everything random about step n is derived from (seed, n), never from the state of a generator, so a run
that was killed and resumed ends with the same bytes as one that was not.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clipdr.batch import Batch, Embeddings
from clipdr.data.draws import step_rng
from clipdr.errors import UserError
from clipdr.progress import progress
from clipdr.train import checkpoint
from clipdr.train.parallel import World, mean, wait, wrap
from clipdr.train.schedule import build_optimizer, learning_rate
from clipdr.train.step import backward
from clipdr.train.student import Student
from clipdr.train.watch import Watch, agreement, routing, warn_of_dead_experts

SAVE_EVERY_SECONDS = 60.0
RECORDS_PER_RUN, LONGEST_GAP = 20, 50  # steps between two records: a 20th of a short run, 50 steps of a long one
EXPLODED = 100.0  # times the loss of the first step


def fit(
    student: Student,
    objective: nn.Module,
    batches: Callable[[int], Iterator[Batch]],
    settings: dict,
    what: str,
    folder: Path,
    world: World,
    tensorboard: Path | None = None,
    evaluate: Callable[[nn.Module, int], None] | None = None,
    begin: Callable[[torch.optim.Optimizer], None] | None = None,
) -> nn.Module:
    """Train for `settings["steps"]` steps; the model whose weights the run gives, in evaluation mode.

    Args:
        objective: a module as `clipdr.losses` describes.
        batches: step -> this process's batches of that step and all later ones.
        settings: as workflow/schemas/training.schema.yaml, with its defaults, and `seed`.
        what: name in messages and progress lines.
        folder: receives log.jsonl and the ladder, and holds the last checkpoint while training: a killed run goes on.
        evaluate: called by the first process after each step, with the model whose weights the run would give now.
        begin: called with the new optimizer, to give it a state.

    Raises:
        UserError: the loss is not finite, or explodes; a checkpoint cannot be written.
    """
    student, objective = student.to(world.device).train(), objective.to(world.device).train()
    optimizer = build_optimizer(nn.ModuleList([student, objective]), settings)
    if begin:
        begin(optimizer)
    ema = _ema(student.model, settings["ema"])
    guard = Guard(what, folder)
    parts = {"model": student.model, "objective": objective, "optimizer": optimizer, "guard": guard}
    parts |= {"ema": ema} if ema else {}
    start = checkpoint.resume(folder, parts)
    watch = Watch(folder, start, settings["batch_size"], tensorboard) if world.first else None
    run = (wrap(student, world), wrap(objective, world))
    record: dict[str, float] = {}
    ladder, saved = checkpoint.ladder_steps(settings["steps"], settings["ladder"]), time.monotonic()
    steps = _timed(batches(start), start, settings["steps"], watch)
    for step, batch in progress(steps, f"{what}: steps", settings["steps"] - start) if world.first else steps:
        values, seen = take_step(*run, optimizer, batch, step, settings, guard, world)
        if ema:
            ema.update_parameters(student.model)
        done = step + 1
        if done % _gap(settings["steps"]) == 0 or done == settings["steps"]:
            record = _record(values | routing(student.model), seen, world)
            if watch:
                watch.record(done, record, world.device)
        if world.first and done in ladder:
            checkpoint.keep(folder, ema.module if ema else student.model, done)
        if world.first and evaluate:
            evaluate(ema.module if ema else student.model, done)
        if world.first and time.monotonic() - saved > SAVE_EVERY_SECONDS:
            checkpoint.save(folder, parts, done)
            saved = time.monotonic()
    if world.first and settings["keep_optimizer"]:
        checkpoint.keep_moments(folder, student.model, optimizer)
    if world.first:
        warn_of_dead_experts(what, record)
    wait(world)
    return (ema.module if ema else student.model).eval()


def take_step(student, objective, optimizer, batch: Batch, step: int, settings: dict, guard: "Guard", world: World):
    """One optimizer step; the values that are logged, and what the objective saw."""
    lr = learning_rate(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = lr
    seed = int(step_rng(settings["seed"], step).integers(2**62)) + world.rank * settings["batch_size"]
    optimizer.zero_grad()
    batch = batch.map(lambda tensor: tensor.to(world.device, non_blocking=True))
    parts, seen = backward(student, objective, batch, settings["piece_size"], seed, world)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, settings["grad_clip"])
    guard.check(parts, norm, batch, step)
    optimizer.step()
    scale = getattr(student, "module", student).model.logit_scale
    with torch.no_grad():
        scale.clamp_(0, math.log(settings["max_logit_scale"]))
    loss = sum(parts.values())
    return {"loss": loss, **parts, "lr": torch.tensor(lr), "logit_scale": scale.detach().exp(), "grad_norm": norm}, seen


class Guard:
    """Stops a run whose loss is no number, or a hundred times that of its first step."""

    def __init__(self, what: str, folder: Path) -> None:
        self.what, self.folder, self.first = what, folder, None

    def check(self, parts: dict[str, Tensor], norm: Tensor, batch: Batch, step: int) -> None:
        """Raises UserError that names step, uids, the likely cause, and the last good checkpoint."""
        loss = float(sum(parts.values()))
        self.first = loss if self.first is None else self.first
        if math.isfinite(loss) and math.isfinite(norm) and loss <= EXPLODED * max(self.first, 1.0):
            return
        bad = [name for name, part in parts.items() if not torch.isfinite(part)] or [
            f"loss {loss:g}, gradient {norm:g}"
        ]
        last = self.folder / checkpoint.RESUME
        raise UserError(
            f"{self.what}: at step {step} {', '.join(bad)} is not finite, or exploded from {self.first:g}; "
            f"{_cause(batch)}. The last good checkpoint is {last if last.is_file() else 'none'}. Images of the batch: "
            f"{', '.join(batch.uids)}"
        )

    def state_dict(self) -> dict:
        return {"first": self.first}

    def load_state_dict(self, state: dict) -> None:
        self.first = state["first"]


def _cause(batch: Batch) -> str:
    for name, teacher in batch.teachers.items():
        for emb in [*teacher.images.values(), *teacher.texts.values()]:
            if not torch.isfinite(emb).all():
                return f"the stored embeddings of teacher {name!r} are not finite: reinforce the dataset again"
    return "lower `lr` or raise `warmup`"


def _record(values: dict[str, Tensor], seen: Embeddings, world: World) -> dict[str, float]:
    """Losses and agreement are means over the processes; the rest is the same in all."""
    values = {name: float(value) for name, value in values.items()} | agreement(seen)
    averaged = mean(torch.tensor(list(values.values()), dtype=torch.float64, device="cpu"), world)
    return dict(zip(values, averaged.tolist(), strict=True))


def _gap(steps: int) -> int:
    return min(max(steps // RECORDS_PER_RUN, 1), LONGEST_GAP)


def _ema(model: nn.Module, decay: float) -> AveragedModel | None:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def _timed(batches: Iterator[Batch], start: int, steps: int, watch: Watch | None) -> Iterator[tuple[int, Batch]]:
    """Steps and their batches; the watch learns how long they were waited for."""
    for step in range(start, steps):
        began = time.monotonic()
        batch = next(batches)
        if watch:
            watch.waited += time.monotonic() - began
        yield step, batch
