"""One step's loss and gradients, of a whole batch at once or of one that is embedded in pieces.

In pieces: all embeddings are computed without a graph, the objective's gradient is taken at the embeddings, and each
piece is embedded once more to be backpropagated from there (GradCache, arXiv 2101.06983). That is the large batch's
gradient, but for batch norms, which see a piece at a time; their running statistics are updated in the second pass
alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from clipdr.batch import Batch, Embeddings, each
from clipdr.train.parallel import World, embeddings


def backward(
    student: nn.Module, objective: nn.Module, batch: Batch, piece_size: int, seed: int, world: World
) -> tuple[dict[str, Tensor], Embeddings]:
    """Add the gradients of a batch to the parameters; the named parts of the loss, and what the objective saw.

    Args:
        student, objective: as `clipdr.train.parallel.wrap` gives them.
        piece_size: pairs that are embedded at once; 0 for all.
        seed: of torch's generator, for dropout; each piece has its own, the same in both passes.
    """
    local = len(batch.uids)
    if piece_size in (0, local):
        torch.manual_seed(seed)
        images, texts, scale, own = student(batch.images, batch.texts)
        seen = embeddings(images, texts, scale, batch.teachers, world)
        parts = objective(seen) | own
        sum(parts.values()).backward()
        return each(torch.detach, parts), seen
    pieces = [slice(start, start + piece_size) for start in range(0, local, piece_size)]
    with torch.no_grad(), _statistics_kept(student):
        outputs = [_embed(student, batch, piece, seed) for piece in pieces]
    images, texts = (
        {name: torch.cat([out[side][name] for out in outputs]).requires_grad_() for name in outputs[0][side]}
        for side in (0, 1)
    )
    scale = outputs[0][2].requires_grad_()
    seen = embeddings(images, texts, scale, batch.teachers, world)
    parts = objective(seen)
    sum(parts.values()).backward()
    parts = each(torch.detach, parts)
    for piece in pieces:
        last = piece.stop >= local
        with student.no_sync() if hasattr(student, "no_sync") and not last else nullcontext():
            again = _embed(student, batch, piece, seed)
            share = len(range(*piece.indices(local))) / local
            pairs = [(again[0][name], emb.grad[piece]) for name, emb in images.items()]
            pairs += [(again[1][name], emb.grad[piece]) for name, emb in texts.items()]
            pairs += [(part, torch.full_like(part, share)) for part in again[3].values()]
            pairs += [(again[2], scale.grad)] if last and scale.grad is not None else []  # not every loss reads it
            torch.autograd.backward(*zip(*pairs, strict=True))
        for name, part in again[3].items():
            parts[name] = parts.get(name, 0) + share * part.detach()
    return parts, seen


def _embed(student: nn.Module, batch: Batch, piece: slice, seed: int):
    torch.manual_seed(seed + piece.start)
    cut = each(lambda tensor: tensor[piece], batch.images), each(lambda tensor: tensor[piece], batch.texts)
    return student(*cut)


@contextmanager
def _statistics_kept(student: nn.Module) -> Iterator[None]:
    """Batch norms that use the statistics of their batch, and keep their running ones as they are."""
    norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
