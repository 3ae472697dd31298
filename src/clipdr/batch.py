"""What a training step reads, and what an objective sees of it: the contract between data, loop and losses.

Shape suffixes: B pairs of this process, G pairs of all processes, D student width, E width of one teacher, C channels,
S image side, L context length.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class Teacher:
    """One teacher's embeddings of a batch, L2-normalised.

    Attributes:
        images: by the name of the images, float [B, E].
        texts: by the kind of the texts, float [B, E].
        scale: 1 / temperature.
    """

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    scale: float

    def map(self, function: Callable[[Tensor], Tensor]) -> "Teacher":
        """The same with each tensor passed through `function`."""
        return replace(self, images=each(function, self.images), texts=each(function, self.texts))


@dataclass(frozen=True)
class Batch:
    """One step's samples, the same whether they were read from an array in memory or from shards.

    Attributes:
        uids: of the images, in their order.
        images: by name (`image`), uint8 [B, C, S, S].
        texts: by kind (`real`, `syn`), int64 tokens [B, L].
        teachers: by name, only those that the objective reads.
    """

    uids: list[str]
    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    teachers: dict[str, Teacher] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The same with each tensor passed through `function`: moved, or cut."""
        teachers = {name: teacher.map(function) for name, teacher in self.teachers.items()}
        return Batch(self.uids, each(function, self.images), each(function, self.texts), teachers)


@dataclass(frozen=True)
class Embeddings:
    """What an objective is a function of: the pairs of all processes, of which `rows` are this one's.

    Attributes:
        images, texts: the student's, L2-normalised float32 [G, D], by the names that the batch gave them.
        scale: the student's 1 / temperature, a scalar.
        teachers: the batch's, [G, E].
        rows: of G, those whose loss this process computes.
    """

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    scale: Tensor
    teachers: dict[str, Teacher]
    rows: slice


def each(function: Callable[[Tensor], Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The dictionary with each tensor passed through `function`."""
    return {name: function(tensor) for name, tensor in tensors.items()}
