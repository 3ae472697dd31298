"""Intervals of 95 %, by drawing a task's images anew (the percentile bootstrap).

Binomial ones would do for accuracies alone; means over classes, worst groups and recalls with several captions per
image have none, so that all are drawn in one way. Images that no draw tells apart, all right or all wrong, leave a
bootstrap no width: then it is Wilson's interval of a share, for as many images.

Shapes: N images (or other units), R draws.
"""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from clipdr.files import sha256

DRAWS = 1000
SEED = 0
LEVEL = 0.95


def weights(units: int, key: str, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """How often each image of a task is drawn, float64 [N], draw by draw; the same for all models."""
    random = np.random.default_rng([SEED, int(sha256(key.encode())[:8], 16)])
    for _ in range(draws):
        yield np.bincount(random.integers(units, size=units), minlength=units).astype(np.float64)


def drawn(kind: ModuleType, outcomes: dict, metric: str, key: str) -> np.ndarray:
    """The metric for each draw of the images, float64 [R]; NaN where a draw leaves it undefined."""
    values = (kind.metrics(outcomes, weights_N)[metric] for weights_N in weights(kind.units(outcomes), key))
    return np.array([np.nan if value is None else value for value in values], float)


def interval(draws_R: np.ndarray, units: int) -> tuple[float, float]:
    """(low, high) of a metric that is a fraction in [0, 1], from draws of so many images."""
    low, high = percentiles(draws_R)
    if low == high and low in (0.0, 1.0):
        from scipy.stats import binomtest

        found = binomtest(round(low * units), units).proportion_ci(LEVEL, "wilson")
        return float(found.low), float(found.high)
    return low, high


def percentiles(values_R: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of draws."""
    low, high = np.nanquantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
