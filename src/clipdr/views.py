"""Augmented views as one array that many runs map into memory.

Decoding and augmenting an image costs more than a training step on it at miniature size, so stored views are replayed
once and shared.

Shape suffixes: N images, A views, T texts (real first, then synthetic), C channels, S side, E teacher width, B batch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipdr.errors import UserError


@dataclass(frozen=True)
class Views:
    """A materialised reinforced dataset.

    Attributes:
        img_NACSS: uint8, 0 … 255.
        texts: per image, the real caption followed by the synthetic ones.
        teachers: per teacher, name -> (image embeddings [N, A, E], text embeddings [N, T, E], 1 / temperature).
    """

    img_NACSS: np.ndarray
    texts: list[list[str]]
    teachers: dict[str, tuple[np.ndarray, np.ndarray, float]]

    def __len__(self) -> int:
        return len(self.img_NACSS)


def save_views(views: Views, folder: Path) -> None:
    """Write `images.npy`, `texts.json`, `teachers.json` and, per teacher, `<name>.image.npy` and `<name>.text.npy`."""
    np.save(folder / "images.npy", views.img_NACSS)
    (folder / "texts.json").write_text(json.dumps(views.texts))
    for name, (img_NAE, txt_NTE, _) in views.teachers.items():
        np.save(folder / f"{name}.image.npy", img_NAE)
        np.save(folder / f"{name}.text.npy", txt_NTE)
    scales = {name: scale for name, (_, _, scale) in views.teachers.items()}
    (folder / "teachers.json").write_text(json.dumps(scales, indent=2, sort_keys=True) + "\n")


def load_views(folder: Path, teachers: list[str]) -> Views:
    """Map a folder of `save_views` into memory, with the named teachers only.

    Raises:
        UserError: a teacher whose embeddings were not stored.
    """
    scales = json.loads((folder / "teachers.json").read_text())
    if missing := [name for name in teachers if name not in scales]:
        raise UserError(
            f"{folder} has no embeddings of teacher {missing[0]!r}; it has {', '.join(scales) or 'none'}: "
            "reinforce the dataset with all teachers of the scale"
        )
    arrays = {
        name: (np.load(folder / f"{name}.image.npy"), np.load(folder / f"{name}.text.npy"), scales[name])
        for name in teachers
    }
    return Views(np.load(folder / "images.npy", mmap_mode="r"), json.loads((folder / "texts.json").read_text()), arrays)


def to_input(img_BCSS: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [B, C, S, S] -> float32 model input, (x / 255 - mean) / std per channel."""
    img = torch.from_numpy(np.ascontiguousarray(img_BCSS)).float().div_(255.0)
    return img.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(std)[:, None, None])


class TokenTable:
    """Texts of every image, tokenised once: `pick(rows, columns)` gives int64 tokens [B, context]."""

    def __init__(self, tokenizer, texts: list[list[str]]) -> None:
        self._starts = np.cumsum([0, *(len(row) for row in texts[:-1])])
        self.counts = np.array([len(row) for row in texts])
        self._tokens = tokenizer([text for row in texts for text in row])

    def pick(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        return self._tokens[torch.from_numpy(self._starts[rows] + columns)]
