"""The metric functions against scikit-learn, plain loops, and properties that any metric of ranks has."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from clipdr.evaluate.retrieval import retrieval_metrics
from clipdr.evaluate.zeroshot import classification_metrics, classifier_weights, ranks


def _logits(seed: int, n: int = 200, c: int = 12, labels_below: int | None = None):
    random = np.random.default_rng(seed)
    labels = random.integers(0, labels_below or c, n)
    logits = random.normal(size=(n, c)) + 1.5 * np.eye(c)[labels]
    return logits.astype(np.float32), labels


def _embeddings(seed: int, images: int = 40):
    """Images with 1 to 3 captions each, in mixed order, about half of them retrieved."""
    random = np.random.default_rng(seed)
    owner = random.permutation(np.repeat(np.arange(images), random.integers(1, 4, images)))
    img = random.normal(size=(images, 16)).astype(np.float32)
    txt = img[owner] + 1.2 * random.normal(size=(len(owner), 16)).astype(np.float32)
    return img, txt.astype(np.float32), owner


@pytest.mark.parametrize("labels_below", [12, 7])  # 7: classes without any image must not count as recall 0
def test_classification_equals_sklearn(labels_below):
    logits, labels = _logits(0, labels_below=labels_below)
    ours = classification_metrics(logits, labels)
    classes = np.arange(logits.shape[1])
    assert ours["acc1"] == pytest.approx(top_k_accuracy_score(labels, logits, k=1, labels=classes), abs=1e-12)
    assert ours["acc5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=classes), abs=1e-12)
    assert ours["mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)), abs=1e-12)


def test_acc5_is_none_below_five_classes():
    assert classification_metrics(*_logits(1, c=4))["acc5"] is None
    assert classification_metrics(*_logits(1, c=5))["acc5"] == 1.0


def test_tied_logits_go_to_the_first_class_as_argmax_does():
    logits = np.round(_logits(2, c=6)[0])  # many ties
    labels = _logits(2, c=6)[1]
    assert (np.array(np.bincount(labels, minlength=6)) > 0).all()
    np.testing.assert_array_equal(ranks(logits, labels) == 0, logits.argmax(1) == labels)


def test_classification_ignores_order_and_scale():
    logits, labels = _logits(3)
    order = np.random.default_rng(0).permutation(len(labels))
    expected = classification_metrics(logits, labels)
    assert classification_metrics(logits[order], labels[order]) == pytest.approx(expected, abs=1e-12)
    assert classification_metrics(100 * logits, labels) == expected


def test_perfect_and_worst_logits():
    labels = np.arange(6)
    assert classification_metrics(np.eye(6), labels) == {"acc1": 1.0, "acc5": 1.0, "mean_per_class_recall": 1.0}
    assert classification_metrics(-np.eye(6), labels) == {"acc1": 0.0, "acc5": 0.0, "mean_per_class_recall": 0.0}


def test_classifier_is_the_mean_of_unit_vectors():
    text = np.array([[[3.0, 0.0], [0.0, 0.5]], [[0.0, 2.0], [0.0, 7.0]]])
    np.testing.assert_allclose(classifier_weights(text), [[0.5**0.5, 0.5**0.5], [0.0, 1.0]])
    random = np.random.default_rng(4).normal(size=(5, 3, 8))
    lengths = np.random.default_rng(5).uniform(0.1, 9, size=(5, 3, 1))
    np.testing.assert_allclose(classifier_weights(random * lengths), classifier_weights(random))


def _recalls_by_loop(img, txt, owner, k):
    """Sort the whole list of candidates for each query, look at the first k."""
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    to_image = to_text = 0
    for text, own in zip(txt, owner, strict=True):
        order = sorted(range(len(img)), key=lambda i: -float(unit(text) @ unit(img[i])))
        to_image += own in order[:k]
    for i, image in enumerate(img):
        order = sorted(range(len(txt)), key=lambda t: -float(unit(image) @ unit(txt[t])))
        to_text += any(owner[t] == i for t in order[:k])
    return to_image / len(txt), to_text / len(img)


def test_retrieval_equals_plain_loops(monkeypatch):
    monkeypatch.setattr("clipdr.evaluate.retrieval.BLOCK", 7)  # so that several blocks and a short one are used
    img, txt, owner = _embeddings(0)
    ours = retrieval_metrics(img, txt, owner)
    for k in (1, 5, 10):
        loop = _recalls_by_loop(img, txt, owner, k)
        assert 0.1 < loop[0] <= 1
        assert (ours[f"image_retrieval_recall@{k}"], ours[f"text_retrieval_recall@{k}"]) == pytest.approx(
            loop, abs=1e-12
        )
    assert ours["mean_recall@1"] == pytest.approx(sum(_recalls_by_loop(img, txt, owner, 1)) / 2, abs=1e-12)


def test_retrieval_ignores_order_and_scale():
    img, txt, owner = _embeddings(1)
    random = np.random.default_rng(0)
    expected = retrieval_metrics(img, txt, owner)
    texts, images = random.permutation(len(txt)), random.permutation(len(img))
    assert retrieval_metrics(img, txt[texts], owner[texts]) == pytest.approx(expected, abs=1e-12)
    new_row = np.argsort(images)  # image i now stands in row new_row[i]
    assert retrieval_metrics(img[images], txt, new_row[owner]) == pytest.approx(expected, abs=1e-12)
    lengths = random.choice([0.25, 2.0, 8.0], size=(len(txt), 1)).astype(np.float32)
    assert retrieval_metrics(4 * img, txt * lengths, owner) == pytest.approx(expected, abs=1e-12)


def test_k_above_the_number_of_candidates_is_left_out():
    img = np.eye(3)
    ours = retrieval_metrics(img, np.repeat(img, 2, axis=0), np.repeat(np.arange(3), 2))
    assert set(ours) == {"image_retrieval_recall@1", *(f"text_retrieval_recall@{k}" for k in (1, 5)), "mean_recall@1"}
    assert set(ours.values()) == {1.0}


def test_equal_captions_of_two_images_tie_towards_the_lower_index():
    img, txt = np.eye(2), np.ones((2, 2))  # every score is the same
    ours = retrieval_metrics(img, txt, np.array([0, 1]))
    assert ours["image_retrieval_recall@1"] == 0.5
    assert ours["text_retrieval_recall@1"] == 0.5
