"""Intervals against the normal approximation, and what they must do at the ends."""

import numpy as np
import pytest
from scipy.stats import norm

from clipdr.errors import UserError
from clipdr.evaluate.intervals import drawn, interval, percentiles, weights
from clipdr.evaluate.kinds import classification
from clipdr.evaluate.outcomes import load, save


def outcomes(hits: int, images: int) -> dict:
    """So many images of class 0 out of all, of which the model says 0 for some and 1 for the others."""
    rank_N = (np.arange(images) >= hits).astype(int)
    return {"label": np.zeros(images, int), "rank": rank_N, "prediction": rank_N, "classes": np.array(2)}


@pytest.mark.parametrize("hits, images", [(100, 400), (30, 100), (640, 800)])
def test_the_interval_of_an_accuracy_is_that_of_a_share(hits, images):
    low, high = interval(drawn(classification, outcomes(hits, images), "acc1", "a/task"), images)
    share = hits / images
    half = norm.ppf(0.975) * (share * (1 - share) / images) ** 0.5
    assert (share - low, high - share) == pytest.approx((half, half), rel=0.12)


def test_all_right_is_no_certainty():
    low, high = interval(drawn(classification, outcomes(50, 50), "acc1", "a/task"), 50)
    assert (low, high) == (pytest.approx(1 / (1 + norm.ppf(0.975) ** 2 / 50), abs=1e-9), 1.0)  # Wilson at 1
    assert interval(drawn(classification, outcomes(0, 50), "acc1", "a/task"), 50) == pytest.approx((0, 1 - low))


def test_draws_are_those_of_the_task_whatever_the_model():
    first, again, other = (np.stack(list(weights(30, key, 5))) for key in ("a/x", "a/x", "a/y"))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (first.sum(axis=1) == 30).all()
    better, worse = (drawn(classification, outcomes(hits, 200), "acc1", "a/x") for hits in (120, 100))
    low, high = percentiles(better - worse)  # twenty images decide, whatever the others are
    assert 0.05 < low < 0.1 < high < 0.15


def test_draws_come_back_from_their_file(tmp_path):
    draws = {"a/x": np.arange(3.0), "b": np.array([np.nan, 1.0])}
    save(draws, tmp_path / "draws.npz")
    found = load(tmp_path / "draws.npz")
    assert found.keys() == draws.keys() and all(np.array_equal(found[k], draws[k], equal_nan=True) for k in draws)
    (tmp_path / "draws.npz").write_bytes(b"cut")
    with pytest.raises(UserError, match="draws.npz cannot be read .* evaluate this run again"):
        load(tmp_path / "draws.npz")


def test_draws_that_leave_a_metric_undefined_do_not_count():
    assert percentiles(np.array([np.nan, 0.5, 0.5])) == (0.5, 0.5)
