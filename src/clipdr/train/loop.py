"""The training loop: batches in, a trained student out, free of any one loss.

The loop embeds every image and text of a batch, hands the embeddings to the objective, and adds up and logs the parts
that come back. Everything random about step n is derived from (seed, n), never from the state of a generator, so a run
that was killed and resumed ends with the same bytes as one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from clipdr.batch import Batch, Embeddings
from clipdr.data.views import step_rng
from clipdr.errors import UserError
from clipdr.models.folder import preprocessing
from clipdr.progress import log, progress

MAX_LOG_SCALE = math.log(100.0)  # CLIP clips the learned logit scale at 100
SAVE_EVERY_SECONDS = 60.0


class Student(nn.Module):
    """All that trains: an open_clip model with a `logit_scale`, and the objective with its modules."""

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        _, self.mean, self.std = preprocessing(model)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The named parts of the loss on a batch."""
        images, texts, parts = self.embed(batch)
        return self.objective(Embeddings(images, texts, self.model.logit_scale.exp(), batch.teachers)) | parts

    def embed(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Embeddings of the images and of the texts, and parts of the loss that are the model's own (here none)."""
        images = {
            name: self.model.encode_image(to_input(img, self.mean, self.std), normalize=True)
            for name, img in batch.images.items()
        }
        txt_MD = self.model.encode_text(torch.cat(list(batch.texts.values())), normalize=True)
        sizes = [len(tokens) for tokens in batch.texts.values()]
        return images, dict(zip(batch.texts, txt_MD.split(sizes), strict=True)), {}


def to_input(img_BCSS: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [B, C, S, S] -> float32 model input, (x / 255 - mean) / std per channel."""
    img = img_BCSS.float().div_(255.0)
    return img.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(std)[:, None, None])


def learning_rate(step: int, settings: dict) -> float:
    """Linear warm-up over `warmup` steps, then a cosine from `lr` to `min_lr`."""
    if step < settings["warmup"]:
        return settings["lr"] * (step + 1) / settings["warmup"]
    share = (step - settings["warmup"]) / max(settings["steps"] - settings["warmup"], 1)
    return settings["min_lr"] + (settings["lr"] - settings["min_lr"]) * (1 + math.cos(math.pi * share)) / 2


def build_optimizer(model: nn.Module, settings: dict) -> torch.optim.Optimizer:
    """AdamW; no weight decay on biases, norms and the logit scale (every tensor of fewer than two dimensions)."""
    weights = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": settings["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), fused=True)


def fit(
    student: Student, batches: Callable[[int], Iterator[Batch]], settings: dict, what: str, folder: Path
) -> list[dict]:
    """Train for `settings["steps"]` steps and return the log records.

    A record has step, loss, lr, logit_scale, grad_norm and each part of the loss by its name.

    Args:
        batches: step -> the batches of that step and all later ones.
        settings: steps, lr, min_lr, warmup, weight_decay, betas, grad_clip, seed.
        what: name in the progress lines.
        folder: holds `resume.pt` while training, so that a killed run goes on where it was last saved.

    Raises:
        UserError: the loss is not finite.
    """
    student.train()
    optimizer = build_optimizer(student, settings)
    start, records = _resume(folder, student, optimizer)
    saved = time.monotonic()
    every = max(settings["steps"] // 20, 1)
    steps = zip(range(start, settings["steps"]), batches(start), strict=False)
    for step, batch in progress(steps, f"{what}: steps", settings["steps"] - start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        torch.manual_seed(int(step_rng(settings["seed"], step).integers(2**63)))  # for dropout, where a model has it
        parts = student(batch)
        loss = sum(parts.values())
        if not torch.isfinite(loss):
            raise UserError(_not_finite(what, step, batch, parts))
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), settings["grad_clip"])
        optimizer.step()
        with torch.no_grad():
            student.model.logit_scale.clamp_(0, MAX_LOG_SCALE)
        if (step + 1) % every == 0 or step + 1 == settings["steps"]:
            scale = student.model.logit_scale.exp()
            values = {"loss": loss, "logit_scale": scale, "grad_norm": norm, **parts}
            records.append({"step": step + 1, "lr": round(learning_rate(step, settings), 6)} | _rounded(values))
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            _save(folder, student, optimizer, step + 1, records)
            saved = time.monotonic()
    student.eval()
    return records


def _rounded(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(value.item(), 6) for name, value in values.items()}


def _not_finite(what: str, step: int, batch: Batch, parts: dict[str, Tensor]) -> str:
    bad = [name for name, part in parts.items() if not torch.isfinite(part)]
    stored = [
        name
        for name, teacher in batch.teachers.items()
        if not _all_finite([*teacher.images.values(), *teacher.texts.values()])
    ]
    start = (
        f"{what}: {', '.join(bad)} of the loss is not finite at step {step} (first uids {', '.join(batch.uids[:3])})"
    )
    if stored:
        return f"{start}: the stored embeddings of teacher {stored[0]!r} are not; reinforce the dataset again"
    return f"{start}; lower `lr` or raise `warmup`"


def _all_finite(tensors: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _save(folder: Path, student: Student, optimizer: torch.optim.Optimizer, step: int, records: list) -> None:
    state = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"step": step, "log": json.dumps(records)}, folder / "resume.pt.partial")
    (folder / "resume.pt.partial").replace(folder / "resume.pt")


def _resume(folder: Path, student: Student, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict]]:
    (folder / "resume.pt.partial").unlink(missing_ok=True)  # of a process that was killed while it saved
    if not (folder / "resume.pt").is_file():
        return 0, []
    state = torch.load(folder / "resume.pt", weights_only=True)
    student.load_state_dict(state["student"])
    optimizer.load_state_dict(state["optimizer"])
    log.info("resumed at step %d", state["step"])
    return state["step"], json.loads(state["log"])
