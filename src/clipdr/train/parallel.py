"""Several processes that train one student: who is who, and embeddings of all of them.

`torchrun` starts the processes and says so in the environment; without it there is one. Shape suffixes: B pairs of this
process, G those of all, D width.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather as all_gather_with_grad

from clipdr.batch import Embeddings, Teacher, each
from clipdr.errors import UserError
from clipdr.models.device import check_device


@dataclass(frozen=True)
class World:
    """This process among all: its number, how many there are, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


def join(device: str, processes: int) -> World:
    """Join the processes that torchrun started; alone if it started none.

    Raises:
        UserError: as many processes as `processes` says were not started, or this machine has no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size != processes:
        raise UserError(
            f"training.processes is {processes}, but {size} were started; call `torchrun --nproc-per-node {processes} "
            "-m clipdr.train …`, or change the key"
        )
    here = _device(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return World(int(os.environ.get("RANK", "0")), size, here)


def leave() -> None:
    """Leave the processes, if there are several."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait(world: World) -> None:
    """Until all processes are here."""
    if world.size > 1:
        dist.barrier()


def wrap(module: nn.Module, world: World) -> nn.Module:
    """The module with its gradients averaged over all processes; batch norms see the batches of all, on GPUs."""
    if world.size == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    if world.device.type == "cuda":
        module = shared_statistics(module)
    # Statistics of batch norms are this process's own on a CPU, and are not copied from the first at every step.
    return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


def shared_statistics(module: nn.Module) -> nn.Module:
    """The module with batch norms that see all processes. Converted by timm, whose norms may hold an activation."""
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(module)


def embeddings(
    images: dict[str, Tensor], texts: dict[str, Tensor], scale: Tensor, teachers: dict[str, Teacher], world: World
) -> Embeddings:
    """What the objective sees: the student's embeddings of all processes with gradient, the teachers' without."""
    if world.size == 1:
        return Embeddings(images, texts, scale, teachers, slice(0, len(next(iter(images.values())))))
    local = len(next(iter(images.values())))
    rows = slice(world.rank * local, (world.rank + 1) * local)
    gathered = {name: teacher.map(_gather) for name, teacher in teachers.items()}
    return Embeddings(each(_gather_with_grad, images), each(_gather_with_grad, texts), scale, gathered, rows)


def mean(values: Tensor, world: World) -> Tensor:
    """Of a tensor that each process has its own of."""
    if world.size > 1:
        dist.all_reduce(values)
        values /= world.size
    return values


def _gather_with_grad(emb_BD: Tensor) -> Tensor:
    return torch.cat(all_gather_with_grad(emb_BD))


def _gather(emb_BD: Tensor) -> Tensor:
    found = [torch.empty_like(emb_BD) for _ in range(dist.get_world_size())]
    dist.all_gather(found, emb_BD.contiguous())
    return torch.cat(found)


def _device(name: str) -> torch.device:
    check_device(name)
    if name == "cuda":
        number = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    return torch.device(name)
