"""The linear probe against scikit-learn called by hand, and what it refuses."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedShuffleSplit

from clipdr.errors import UserError
from clipdr.evaluate.kinds import classification
from clipdr.evaluate.kinds.linear_probe import STRENGTHS, open_task, probe, score
from clipdr.pool.layout import write_classification, write_split


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    unit = found.data / np.linalg.norm(found.data, axis=1, keepdims=True)
    return unit[:300], found.target[:300], unit[300:600], found.target[300:600]


def test_it_is_scikit_learn_with_the_best_of_the_sweep(digits):
    train, label, test, _ = digits
    ((rest, held),) = StratifiedShuffleSplit(1, test_size=0.25, random_state=3).split(train, label)

    def quality(strength: float) -> tuple[float, float]:
        model = LogisticRegression(C=strength, max_iter=1000).fit(train[rest], label[rest])
        return model.score(train[held], label[held]), -log_loss(label[held], model.predict_proba(train[held]))

    qualities = [quality(strength) for strength in STRENGTHS]
    best = STRENGTHS[qualities.index(max(qualities))]
    by_hand = LogisticRegression(C=best, max_iter=1000).fit(train, label)
    found = probe(train, label, test, 10, 0.25, 3)
    np.testing.assert_array_equal(found.argmax(axis=1), by_hand.predict(test))
    np.testing.assert_allclose(np.exp(found), by_hand.predict_proba(test), atol=1e-12)
    assert 0 < STRENGTHS.index(best) < len(STRENGTHS) - 1  # the sweep makes a difference


def test_a_class_without_training_images_is_never_predicted(digits):
    train, label, test, target = digits
    kept = label != 4
    found = probe(train[kept], label[kept], test, 10, 0.2, 0)
    assert not (found.argmax(axis=1) == 4).any() and np.isneginf(found[:, 4]).all()
    ranks = classification.ranks(found, target)
    assert (ranks[target == 4] == 9).all()


def test_two_classes(digits):
    train, label, test, target = digits
    kept, asked = label < 2, target < 2
    found = probe(train[kept], label[kept], test[asked], 2, 0.2, 0)
    assert (found.argmax(axis=1) == target[asked]).mean() > 0.95


@pytest.mark.parametrize("labels", [[0] * 20, [0] * 19 + [1]])
def test_too_few_training_images(labels):
    features = np.random.default_rng(0).normal(size=(20, 4))
    with pytest.raises(UserError, match="give more training images per class"):
        probe(features, np.array(labels), features, 2, 0.2, 0)


class Pixels:
    """An encoder that reads the bytes of an image as its embedding."""

    def images(self, images, skip):
        found = np.stack([np.frombuffer(data, np.float32) for data, _ in images])
        return found, np.ones(len(found), bool)


def test_a_folder_with_both_splits(tmp_path, digits):
    train, label, test, target = digits
    as_samples = [
        [{"webp": row.astype(np.float32).tobytes(), "cls": str(c).encode()} for row, c in zip(*both, strict=True)]
        for both in ((train, label), (test, target))
    ]
    folder = tmp_path / "wds_digits"
    write_classification(folder, as_samples[1], [str(n) for n in range(10)], ["{c}"])
    write_split(folder / "train", as_samples[0])
    outcomes = score(open_task(folder, {"key": "digits", "kind": "linear_probe"}), Pixels())
    np.testing.assert_array_equal(outcomes["label"], target)
    expected = probe(train.astype(np.float32), label, test.astype(np.float32), 10, 0.2, 0)
    np.testing.assert_array_equal(outcomes["prediction"], expected.argmax(axis=1))
    assert classification.metrics(outcomes, np.ones(300))["acc1"] > 0.8


def test_a_folder_without_training_images(tmp_path):
    write_classification(tmp_path / "wds_digits", [{"webp": b"", "cls": b"0"}], ["zero"], ["{c}"])
    with pytest.raises(UserError, match="train/nshards.txt: missing"):
        open_task(tmp_path / "wds_digits", {"key": "digits", "kind": "linear_probe"})
