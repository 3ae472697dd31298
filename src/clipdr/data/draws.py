"""What is drawn at random for a step: pure functions of (seed, step), whatever the data are read from.

A draw belongs to a position of the global batch, so that each of several processes draws what one alone would. Each is
a number in [0, 1), to be scaled by however many views or captions the image has, which only its reader knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Streams of randomness: a generator per epoch, one per step, one per place of a step, and one per epoch of a corpus.
EPOCH, STEP, STUDENT, CORPUS = 0, 1, 4, 5
VIEW, SYN, ANY = 0, 1, 2  # columns of the draws
REAL = 0  # column of the real caption; synthetic captions follow


@dataclass(frozen=True)
class First:
    """How many of an image's stored views and synthetic captions are drawn from, the first ones; None for all."""

    views: int | None = None
    synthetic: int | None = None

    def of_views(self, views_B: np.ndarray | int) -> np.ndarray | int:
        """How many views are drawn from, of so many."""
        return views_B if self.views is None else np.minimum(views_B, self.views)

    def of_texts(self, texts_B: np.ndarray) -> np.ndarray:
        """How many texts are drawn from, of so many with the real one."""
        return texts_B if self.synthetic is None else np.minimum(texts_B, REAL + 1 + self.synthetic)


ALL = First()


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of all that is drawn for one step."""
    return np.random.default_rng([seed, STEP, step])


def student_rngs(seed: int, step: int, places: slice) -> Iterator[np.random.Generator]:
    """Generators of what students alone see, one for each of these places of the global batch."""
    return (np.random.default_rng([seed, STUDENT, step, place]) for place in range(places.start, places.stop))


def draws(seed: int, step: int, batch_size: int) -> np.ndarray:
    """float64 [batch_size, 3]: what decides view, synthetic caption and any caption, by position in the batch."""
    return step_rng(seed, step).random((batch_size, 3))


def view_of(draws_B3: np.ndarray, views_B: np.ndarray | int) -> np.ndarray:
    """Which of its stored views each image comes in: int64 [B]."""
    return (draws_B3[:, VIEW] * views_B).astype(np.int64)


def text_of(kind: str, draws_B3: np.ndarray, texts_B: np.ndarray) -> np.ndarray:
    """Which of its texts each image comes with: int64 [B].

    Args:
        kind: `real` is the real caption, `syn` a random synthetic one, `any` a random one of all, and `real-or-syn`
            with equal chances the real one or a random synthetic one.
        texts_B: how many texts each image has, the real one among them.
    """
    synthetic = REAL + 1 + (draws_B3[:, SYN] * (texts_B - 1)).astype(np.int64)
    match kind:
        case "real":
            return np.full(len(texts_B), REAL)
        case "syn":
            return synthetic
        case "real-or-syn":
            return np.where(draws_B3[:, ANY] < 0.5, REAL, synthetic)
        case "any":
            return (draws_B3[:, ANY] * texts_B).astype(np.int64)
    raise ValueError(f"{kind!r} is no kind of texts")
