"""What a training step reads, and what an objective sees of it: the contract between data, loop and losses.

Shape suffixes: B pairs of this process, G pairs of all processes, D student width, E width of one teacher, C channels,
S image side, L context length.
"""

from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Embeddings:
    """What an objective is a function of.

    Attributes:
        images, texts: the student's, L2-normalised float [B, D], by the names that the batch gave them.
        scale: the student's 1 / temperature, a scalar.
        teachers: the batch's.
    """

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    scale: Tensor
    teachers: dict[str, Teacher]
