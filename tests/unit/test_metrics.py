"""The metrics of every kind of task against scikit-learn, plain loops, and properties that they must have."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, top_k_accuracy_score

from clipdr.errors import UserError
from clipdr.evaluate.kinds import (
    choice,
    classification,
    grouped,
    kind_of,
    linear_probe,
    multilabel,
    retrieval,
    schemas,
    similarity,
    winogavil,
)
from clipdr.evaluate.kinds.classification import classifier_weights, ranks


def classification_metrics(logits, labels):
    outcomes = classification.outcomes(logits, labels)
    return classification.metrics(outcomes, np.ones(len(labels)))


def retrieval_metrics(img, txt, owner):
    outcomes = retrieval.outcomes(img, txt, owner)
    return retrieval.metrics(outcomes, np.ones(len(img)))


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
    f1 = f1_score(labels, logits.argmax(1), average="macro", labels=np.unique(labels))  # as WILDS has it for iWildCam
    assert ours["F1-macro_all"] == pytest.approx(f1, abs=1e-12)


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
    for logits, value in ((np.eye(6), 1.0), (-np.eye(6), 0.0)):
        assert set(classification_metrics(logits, labels).values()) == {value}


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
    monkeypatch.setattr("clipdr.evaluate.kinds.retrieval.BLOCK", 7)  # so that several blocks and a short one are used
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
    shuffled = retrieval_metrics(img, txt[texts], owner[texts])
    first = {name for name in expected if name.startswith("first_caption")}  # which is first, order says
    assert {name: shuffled[name] for name in expected.keys() - first} == pytest.approx(
        {name: expected[name] for name in expected.keys() - first}, abs=1e-12
    )
    new_row = np.argsort(images)  # image i now stands in row new_row[i]
    assert retrieval_metrics(img[images], txt, new_row[owner]) == pytest.approx(expected, abs=1e-12)
    lengths = random.choice([0.25, 2.0, 8.0], size=(len(txt), 1)).astype(np.float32)
    assert retrieval_metrics(4 * img, txt * lengths, owner) == pytest.approx(expected, abs=1e-12)


def test_a_k_above_the_number_of_candidates_is_not_defined():
    img = np.eye(3)
    ours = retrieval_metrics(img, np.repeat(img, 2, axis=0), np.repeat(np.arange(3), 2))
    defined = {"image_retrieval_recall@1", *(f"text_retrieval_recall@{k}" for k in (1, 5)), "mean_recall@1"}
    defined |= {f"first_caption_{side}_retrieval_recall@1" for side in ("image", "text")}
    assert {name: value for name, value in ours.items() if value is not None} == dict.fromkeys(defined, 1.0)


def test_equal_captions_of_two_images_tie_towards_the_lower_index():
    img, txt = np.eye(2), np.ones((2, 2))  # every score is the same
    ours = retrieval_metrics(img, txt, np.array([0, 1]))
    assert ours["image_retrieval_recall@1"] == 0.5
    assert ours["text_retrieval_recall@1"] == 0.5


def _grouped(seed: int = 0):
    logits, labels = _logits(seed)
    groups = np.random.default_rng(seed).choice([0, 3, 5, 7], 200, p=[0.6, 0.3, 0.07, 0.03])
    return logits, labels, groups, classification.outcomes(logits, labels) | {"group": groups}


def test_the_worst_group_by_loops():
    logits, labels, groups, outcomes = _grouped()
    found = grouped.metrics(outcomes, np.ones(200))
    right = [labels[n] == logits[n].argmax() for n in range(200)]
    top5 = [labels[n] in np.argsort(-logits[n])[:5] for n in range(200)]
    for name, hits in (("acc_wg", right), ("acc_worst_region", right), ("acc_top5_wg", top5)):
        by_group = {g: np.mean([hit for hit, own in zip(hits, groups, strict=True) if own == g]) for g in (0, 3, 5, 7)}
        assert found[name] == pytest.approx(min(by_group.values()), abs=1e-12)
    assert found["acc_wg"] < found["acc1"] and found["acc_top5_wg"] > found["acc_wg"]
    assert grouped.facts(outcomes)["groups"] == {str(g): int((groups == g).sum()) for g in (0, 3, 5, 7)}


def test_a_group_of_few_images_counts_as_wilds_counts_it():
    """FMoW's region of four images: all wrong makes the whole metric zero."""
    outcomes = classification.outcomes(np.eye(8)[[0, 1, 2, 3]], np.array([0, 1, 2, 7])) | {
        "group": np.array([0, 0, 0, 5])
    }
    assert grouped.metrics(outcomes, np.ones(4))["acc_worst_region"] == 0.0


def test_average_precision_equals_sklearn():
    random = np.random.default_rng(0)
    target = random.random((60, 5)) < 0.3
    scores = random.normal(size=(60, 5)) + target
    ours = multilabel.metrics(multilabel.outcomes(scores, target), np.ones(60))["mean_average_precision"]
    assert ours == pytest.approx(average_precision_score(target, scores, average="macro"), abs=1e-12)


def test_a_class_without_images_has_no_precision():
    with pytest.raises(UserError, match="class 1 of a multilabel task has no image"):
        multilabel.outcomes(np.zeros((3, 2)), np.array([[1, 0], [1, 0], [0, 0]]))


def _choices():
    """Seven cases of four images: group 0 right 2 of 3, group 1 right 1 of 2, two cases in no group that counts."""
    return {
        "correct": np.array([True, True, False, True, False, True, True]),
        "options": np.array([2, 2, 2, 2, 2, 5, 5]),
        "image": np.array([0, 0, 1, 1, 2, 3, 3]),
        "group": np.array([0, 0, 0, 1, 1, -1, -1]),
    }


def test_choices_by_hand():
    outcomes = _choices()
    assert choice.metrics(outcomes, np.ones(4)) == {
        "accuracy": pytest.approx(5 / 7),
        "macro_accuracy": pytest.approx((2 / 3 + 1 / 2) / 2),
    }
    assert choice.chance(outcomes) == {"accuracy": pytest.approx((5 / 2 + 2 / 5) / 7), "macro_accuracy": 0.5}


def test_winogavil_by_splits():
    outcomes = {
        "jaccard": np.array([1.0, 0.5, 0.25, 0.0]),
        "candidates": np.array([5, 10, 12, 10]),
        "associations": np.array([2, 2, 3, 2]),
        "images": np.array(40),
    }
    found = winogavil.metrics(outcomes, np.ones(4))
    assert found["avg_jaccard_score"] == pytest.approx(1.75 / 4)
    assert (found["jaccard_score_5"], found["jaccard_score_6"]) == (1.0, None)
    assert (found["jaccard_score_10"], found["jaccard_score_10-12"]) == (0.25, 0.25)


def test_winogavil_chance_by_drawing():
    random = np.random.default_rng(0)
    drawn = [len(set(random.permutation(12)[:3]) & {0, 1, 2}) for _ in range(20000)]
    expected = np.mean([hits / (6 - hits) for hits in drawn])
    outcomes = {key: np.array([value]) for key, value in {"jaccard": 0.0, "candidates": 12, "associations": 3}.items()}
    assert winogavil.chance(outcomes)["jaccard_score_12"] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("cue, expected", [("werewolf", "A werewolf"), ("Emerald", "An emerald"), ("ice", "An ice")])
def test_the_prompt_of_a_cue(cue, expected):
    assert winogavil.prompt(cue) == expected


def similarity_outcomes():
    return {"image": np.array([0.5, -0.1]), "text": np.array([0.2, 0.4, 0.9]), "owner": np.array([0, 0, 1])}


def test_similarity_weighs_a_caption_as_its_image():
    found = similarity.metrics(similarity_outcomes(), np.array([1.0, 3.0]))
    assert found["image_cosine"] == pytest.approx((0.5 - 0.3) / 4)
    assert found["text_cosine"] == pytest.approx((0.2 + 0.4 + 3 * 0.9) / 5)


def test_retrieval_with_first_captions_alone_is_a_test_of_as_many_texts():
    """Captions after the first of an image are as if they were not there."""
    img, txt, owner = _embeddings(1)
    firsts = [list(owner).index(n) for n in range(len(img))]
    alone = retrieval_metrics(img, txt[firsts], np.arange(len(img)))
    found = retrieval_metrics(img, txt, owner)
    for side in ("image", "text"):
        assert found[f"first_caption_{side}_retrieval_recall@1"] == alone[f"{side}_retrieval_recall@1"]
    assert found["first_caption_text_retrieval_recall@1"] != found["text_retrieval_recall@1"]


OUTCOMES = {
    classification: classification.outcomes(*_logits(5)),
    grouped: _grouped(5)[3],
    retrieval: retrieval.outcomes(*_embeddings(5)),
    choice: _choices(),
}


def test_kinds_have_the_metrics_that_they_say():
    others = {
        similarity: similarity_outcomes(),
        multilabel: multilabel.outcomes(np.eye(3), np.eye(3)),
        winogavil: {
            key: np.array([value]) for key, value in {"jaccard": 0.5, "candidates": 10, "associations": 3}.items()
        },
    }
    every = OUTCOMES | others | {linear_probe: OUTCOMES[classification]}
    assert set(map(kind_of, schemas())) == every.keys()
    for kind, outcomes in every.items():
        assert kind.metrics(outcomes, np.ones(kind.units(outcomes))).keys() == set(kind.METRICS)


@pytest.mark.parametrize("kind", OUTCOMES, ids=lambda kind: kind.__name__.rpartition(".")[2])
def test_a_weight_is_as_many_copies_of_an_image(kind):
    """Metrics of drawn images: each twice changes nothing, one more copy of some is what those alone add."""
    outcomes = OUTCOMES[kind]
    units = kind.units(outcomes)
    plain = kind.metrics(outcomes, np.ones(units))
    assert kind.metrics(outcomes, np.full(units, 2.0)) == pytest.approx(plain, abs=1e-12)
    weights = np.random.default_rng(0).integers(0, 3, units).astype(float)
    copies = copied(kind, outcomes, np.repeat(np.arange(units), weights.astype(int)))
    expected = kind.metrics(copies, np.ones(kind.units(copies)))
    assert kind.metrics(outcomes, weights) == pytest.approx(expected, abs=1e-12)


def copied(kind, outcomes, rows):
    """The outcomes of these images, some of them several times."""
    if kind is retrieval:
        texts = [(new, t) for new, row in enumerate(rows) for t in np.flatnonzero(outcomes["owner"] == row)]
        owner, old = (np.array(column) for column in zip(*texts, strict=True))
        of_images = {key: outcomes[key][rows] for key in ("text_rank", "first_image_rank", "first_text_rank")}
        return {"owner": owner, "image_rank": outcomes["image_rank"][old], **of_images}
    elif kind is choice:
        cases = [(new, k) for new, row in enumerate(rows) for k in np.flatnonzero(outcomes["image"] == row)]
        image, old = (np.array(column) for column in zip(*cases, strict=True))
        return {key: outcomes[key][old] for key in ("correct", "options", "group")} | {"image": image}
    return {key: value if value.ndim == 0 else value[rows] for key, value in outcomes.items()}


@pytest.mark.parametrize("kind", [classification, retrieval], ids=["classification", "retrieval"])
def test_guesses_score_chance(kind):
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        if kind is classification:
            outcomes = classification.outcomes(random.random((80, 7)), random.choice(7, 80, p=[0.4] + [0.1] * 6))
        else:
            owner = np.repeat(np.arange(30), [1, 2, 3] * 10)
            outcomes = retrieval.outcomes(random.normal(size=(30, 8)), random.normal(size=(60, 8)), owner)
        metrics = kind.metrics(outcomes, np.ones(kind.units(outcomes)))
        found.append({name: metrics[name] - value for name, value in kind.chance(outcomes).items()})
    for name in found[0]:
        assert abs(np.mean([one[name] for one in found])) < 0.01, name
