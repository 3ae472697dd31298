"""A subset is a uniform sample that grows by adding, whatever the order of the index."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, chi2

from clipdr.data.subset import sample
from clipdr.errors import UserError
from clipdr.files import sha256


@pytest.fixture(scope="module")
def index():
    uids = [sha256(str(i).encode())[:32] for i in range(500)]
    return pd.DataFrame({"uid": uids, "shard": [f"{i // 100:05d}.tar" for i in range(500)], "caption": "x"})


def test_smaller_subsets_lie_inside_larger_ones(index):
    sizes = [1, 10, 100, 499, 500]
    subsets = [set(sample(index, size, 3)["uid"]) for size in sizes]
    assert [len(subset) for subset in subsets] == sizes
    assert all(small < large for small, large in zip(subsets, subsets[1:], strict=False))


def test_rows_keep_the_order_and_content_of_the_index(index):
    chosen = sample(index, 50, 0)
    pd.testing.assert_frame_equal(chosen, index[index["uid"].isin(chosen["uid"])].reset_index(drop=True))


def test_the_choice_does_not_depend_on_the_order_of_the_index(index):
    shuffled = index.sample(frac=1, random_state=0)
    for frame in (shuffled, shuffled.reset_index(drop=True)):
        assert set(sample(frame, 50, 0)["uid"]) == set(sample(index, 50, 0)["uid"])


def test_every_pair_is_equally_likely(index):
    """Counts over 400 seeds against the binomial of a uniform choice of 100 in 500."""
    counts = np.zeros(500)
    for seed in range(400):
        counts[index["uid"].isin(sample(index, 100, seed)["uid"])] += 1
    assert binom.ppf(1e-7, 400, 0.2) <= counts.min() and counts.max() <= binom.ppf(1 - 1e-7, 400, 0.2)
    statistic = ((counts - 80) ** 2 / (400 * 0.2 * 0.8)).sum()
    assert chi2.ppf(1e-4, 499) < statistic < chi2.ppf(1 - 1e-4, 499)


def test_seeds_choose_independently(index):
    first, second = (set(sample(index, 100, seed)["uid"]) for seed in (0, 1))
    assert 5 < len(first & second) < 40  # 20 on average


def test_more_than_the_pool_holds(index):
    with pytest.raises(UserError, match="501.*500.*`size`"):
        sample(index, 501, 0)
