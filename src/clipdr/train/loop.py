"""The training loop: batches in, a trained model out, free of any one loss.

Everything random about step n is derived from (seed, n), never from the state of a generator, so a run that was killed
and resumed ends with the same bytes as one that was not.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clipdr.cli import log, progress
from clipdr.errors import UserError

MAX_LOG_SCALE = math.log(100.0)  # CLIP clips the learned logit scale at 100
SAVE_EVERY_SECONDS = 60.0
EPOCH, STEP = 0, 1  # streams of randomness: one generator per epoch and one per step


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of all that is drawn for one step: views, captions."""
    return np.random.default_rng([seed, STEP, step])


def epoch_batch(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Sample indices of step `step` (from 0), int64 [batch_size]: epochs are permutations drawn from (seed, epoch)."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // size
    orders = {epoch: np.random.default_rng([seed, EPOCH, epoch]).permutation(size) for epoch in np.unique(epochs)}
    return np.array([orders[epoch][position % size] for epoch, position in zip(epochs, positions, strict=True)])


def learning_rate(step: int, settings: dict) -> float:
    """Linear warm-up over `warmup` steps, then a cosine from `lr` to `min_lr`."""
    if step < settings["warmup"]:
        return settings["lr"] * (step + 1) / settings["warmup"]
    share = (step - settings["warmup"]) / max(settings["steps"] - settings["warmup"], 1)
    return settings["min_lr"] + (settings["lr"] - settings["min_lr"]) * (1 + math.cos(math.pi * share)) / 2


def build_optimizer(model: torch.nn.Module, settings: dict) -> torch.optim.Optimizer:
    """AdamW; no weight decay on biases, norms and the logit scale (every tensor of fewer than two dimensions)."""
    weights = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": settings["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), fused=True)


def fit(
    model: torch.nn.Module, loss_at: Callable[[int], torch.Tensor], settings: dict, what: str, folder: Path
) -> list[dict]:
    """Train for `settings["steps"]` steps and return the log records (step, loss, lr, logit_scale, grad_norm).

    Args:
        model: an open_clip model with a `logit_scale` parameter.
        loss_at: step -> scalar loss of that step's batch.
        settings: steps, lr, min_lr, warmup, weight_decay, betas, grad_clip, seed.
        what: name in the progress lines.
        folder: holds `resume.pt` while training, so that a killed run goes on where it was last saved.

    Raises:
        UserError: the loss is not finite.
    """
    model.train()
    optimizer = build_optimizer(model, settings)
    start, records = _resume(folder, model, optimizer)
    saved = time.monotonic()
    every = max(settings["steps"] // 20, 1)
    for step in progress(range(start, settings["steps"]), f"{what}: steps", settings["steps"] - start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        torch.manual_seed(int(step_rng(settings["seed"], step).integers(2**63)))  # for dropout, where a model has it
        loss = loss_at(step)
        if not torch.isfinite(loss):
            raise UserError(f"{what}: the loss is {loss.item()} at step {step}; lower `lr` or raise `warmup`")
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings["grad_clip"])
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOG_SCALE)
        if (step + 1) % every == 0 or step + 1 == settings["steps"]:
            records.append(_record(step + 1, loss, learning_rate(step, settings), model.logit_scale, norm))
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            _save(folder, model, optimizer, step + 1, records)
            saved = time.monotonic()
    model.eval()
    return records


def _record(step: int, loss: torch.Tensor, lr: float, logit_scale: torch.Tensor, norm: torch.Tensor) -> dict:
    values = {"loss": loss.item(), "lr": lr, "logit_scale": logit_scale.exp().item(), "grad_norm": norm.item()}
    return {"step": step} | {name: round(value, 6) for name, value in values.items()}


def _save(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, records: list) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "log": json.dumps(records)}
    torch.save(state, folder / "resume.pt.partial")
    (folder / "resume.pt.partial").replace(folder / "resume.pt")


def _resume(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict]]:
    (folder / "resume.pt.partial").unlink(missing_ok=True)  # of a process that was killed while it saved
    if not (folder / "resume.pt").is_file():
        return 0, []
    state = torch.load(folder / "resume.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    log.info("resumed at step %d", state["step"])
    return state["step"], json.loads(state["log"])
