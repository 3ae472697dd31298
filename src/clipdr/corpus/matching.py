"""Algorithm 1 of DIME-FM (arXiv 2303.18232): a text of its own for each image, out of a corpus that is much larger.

In rounds, each image that has none yet looks for the most similar text that nobody has; of several images that find the
same one, the first gets it, or the most similar. It ends when a round gives texts to less than 5 % of the images that
were left, or when images or texts are used up.

What the poster prints differs, and does not work (tests/unit/test_matching.py runs it). Its line 11 takes an image out
of all images and not out of those that are left: everyone but the last one comes back, and gets more texts, and since
one image alone is ever missing, it stops after a round or two whatever they did. Line 7 stands after the loop that it
belongs to, and nothing stops a search without texts.

Exact: no index is approximate. Similarities are products of blocks, of which only each image's best text in each block
of texts is kept. When that one is gone the block is looked through again, for the images that had it: a table of the
best costs images × blocks × 8 bytes, and later rounds cost little more than the images that lost.

Shapes: N images, M texts, D width, K blocks of texts, L images that have no text yet. A tie goes to the lower index.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.progress import log, progress

STOP = 0.95  # share of the images left after a round from which on another one is not worth it
NONE = -1
BEST, WHICH, DONE, ROUNDS = "best.npy", "which.npy", "done.json", "rounds.json"


@dataclass(frozen=True)
class Blocks:
    """How many images and texts are multiplied at once."""

    images: int
    texts: int

    def check(self, images: int, texts: int, width: int) -> None:
        """Raises UserError if a product and what is multiplied do not fit into half of the memory of this machine."""
        rows, columns = min(self.images, images), min(self.texts, texts)
        product = 4 * (rows * columns + (rows + columns) * width)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if product > memory // 2:
            raise UserError(
                f"texts: a block of {rows} images by {columns} texts takes {product / 1e9:.1f} GB, and this machine "
                f"has {memory / 1e9:.1f}; lower block_images or block_texts"
            )


def find(
    img_ND: np.ndarray, txt_MD: np.ndarray, conflict: str, blocks: Blocks, folder: Path
) -> tuple[np.ndarray, list]:
    """The text of each image, int64 [N], or NONE; and of each round its images left before, and those that found one.

    Args:
        img_ND, txt_MD: L2-normalised, float16 or float32, perhaps mapped from files.
        conflict: `first`, in the order of the images, or `best`, the most similar.
        blocks: what is held at once.
        folder: where a search that was killed goes on; empty for a new one.

    Raises:
        UserError: there are no texts, vectors are not finite, or a block is larger than memory.
    """
    if not len(txt_MD) or not len(img_ND):
        raise UserError(
            f"a corpus of {len(txt_MD)} texts for {len(img_ND)} images cannot be matched; give some of both"
        )
    blocks.check(len(img_ND), len(txt_MD), img_ND.shape[1])
    for what, vectors, size in (("image", img_ND, blocks.images), ("text", txt_MD, blocks.texts)):
        check_unit(vectors, what, size)
    table = Table(img_ND, txt_MD, blocks, folder)
    text_N, rounds = _resume(folder, len(img_ND))
    while _goes_on(text_N, len(txt_MD), rounds):
        left_L, free_M = np.flatnonzero(text_N == NONE), np.ones(len(txt_MD), bool)
        free_M[text_N[text_N != NONE]] = False
        score_L, which_L = table.best(left_L, free_M)
        winners = _winners(score_L, which_L, conflict)
        text_N[left_L[winners]] = which_L[winners]
        rounds.append({"left": len(left_L), "matched": len(winners)})
        _save(folder, text_N, rounds)
        log.info("round %d: %d images left, %d found a text", len(rounds), len(left_L), len(winners))
    return text_N, rounds


def _goes_on(text_N: np.ndarray, texts: int, rounds: list) -> bool:
    """Whether images and texts are left, and the last round was worth it."""
    left = int((text_N == NONE).sum())
    return left > 0 and len(text_N) - left < texts and (not rounds or left / rounds[-1]["left"] < STOP)


def _winners(score_L: np.ndarray, which_L: np.ndarray, conflict: str) -> np.ndarray:
    """Of the images that want the same text, the one that gets it: positions in L, sorted."""
    order_L = np.arange(len(which_L)) if conflict == "first" else np.lexsort((np.arange(len(which_L)), -score_L))
    _, first = np.unique(which_L[order_L], return_index=True)
    return np.sort(order_L[first])


class Table:
    """Of each image, the best text in each block of texts, and how similar it is: [N, K] each, in files of `folder`."""

    def __init__(self, img_ND: np.ndarray, txt_MD: np.ndarray, blocks: Blocks, folder: Path) -> None:
        self.img_ND, self.txt_MD, self.blocks = img_ND, txt_MD, blocks
        self.parts = list(parts(len(txt_MD), blocks.texts))
        shape, new = (len(img_ND), len(self.parts)), not (folder / DONE).is_file()
        self.best_NK, self.which_NK = (
            open_memmap(folder / name, "w+" if new else "r+", dtype, shape if new else None)
            for name, dtype in ((BEST, np.float32), (WHICH, np.int32))
        )
        done = 0 if new else json.loads((folder / DONE).read_text())
        starts = range(done, len(img_ND), blocks.images)
        for start in progress(starts, "blocks of images", len(starts)):
            rows = slice(start, min(start + blocks.images, len(img_ND)))
            for k, part in enumerate(self.parts):
                best, which = self._look(self.img_ND[rows], part, None)
                self.best_NK[rows, k], self.which_NK[rows, k] = best, which + part.start
            self.best_NK.flush()
            self.which_NK.flush()
            with atomic_file(folder / DONE) as path:
                path.write_text(json.dumps(rows.stop))

    def best(self, left_L: np.ndarray, free_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarity and index [L] of the best text that is free, of the images `left_L`."""
        found = np.empty(len(left_L), np.float32), np.empty(len(left_L), np.int64)
        for rows in parts(len(left_L), self.blocks.images):
            images = left_L[rows]
            best_RK, which_RK = self.best_NK[images], self.which_NK[images]
            for k, part in enumerate(self.parts):
                self._renew(best_RK, which_RK, k, part, images, free_M)
            column_R = best_RK.argmax(axis=1)
            self.best_NK[images], self.which_NK[images] = best_RK, which_RK
            at = np.arange(len(images)), column_R
            found[0][rows], found[1][rows] = best_RK[at], which_RK[at]
        return found

    def _renew(self, best_RK, which_RK, k: int, part: slice, images: np.ndarray, free_M: np.ndarray) -> None:
        """Look through a block again for the images whose best text in it is gone."""
        gone_R = (best_RK[:, k] > -np.inf) & ~free_M[which_RK[:, k]]
        if not gone_R.any():
            return
        free = np.flatnonzero(free_M[part])
        if not len(free):
            best_RK[gone_R, k] = -np.inf
            return
        best, which = self._look(self.img_ND[images[gone_R]], part, free)
        best_RK[gone_R, k], which_RK[gone_R, k] = best, part.start + free[which]

    def _look(self, img_RD: np.ndarray, part: slice, free: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Similarity and place of each image's best text of a block, or of the free ones of it."""
        texts = self.txt_MD[part] if free is None else self.txt_MD[part][free]
        best, which = (as_float(img_RD) @ as_float(texts).T).max(dim=1)
        return best.numpy(), which.numpy()


def check_unit(vectors: np.ndarray, what: str, size: int) -> None:
    """Raises UserError that names the first of some vectors that is not finite or not of unit length."""
    for part in parts(len(vectors), size):
        wrong = ~(np.abs(np.linalg.norm(vectors[part].astype(np.float32), axis=1) - 1) < 0.01)  # NaN is wrong, too
        if wrong.any():
            raise UserError(
                f"the embedding of {what} {part.start + int(wrong.argmax())} is not finite, or not of unit length; "
                "embed them again"
            )


def as_float(vectors: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(vectors, np.float32))


def parts(number: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, number)) for start in range(0, number, size))


def _resume(folder: Path, images: int) -> tuple[np.ndarray, list]:
    path = folder / ROUNDS
    if not path.is_file():
        return np.full(images, NONE, np.int64), []
    state = json.loads(path.read_text())
    return np.load(folder / state["texts"]), state["rounds"]


def _save(folder: Path, text_N: np.ndarray, rounds: list) -> None:
    """Two files, of which the second is renamed into place and names the first."""
    name = f"texts-{len(rounds)}.npy"
    np.save(folder / name, text_N)
    with atomic_file(folder / ROUNDS) as path:
        path.write_text(json.dumps({"texts": name, "rounds": rounds}))
    (folder / f"texts-{len(rounds) - 1}.npy").unlink(missing_ok=True)
