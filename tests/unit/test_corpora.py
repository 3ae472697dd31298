"""The corpus that a run reads, as artifacts; and words of texts that do not fit each other."""

import pytest
from refusals import edited, refused
from shipped import REPO, SHIPPED

from clipdr import config
from clipdr.artifacts import all_of
from clipdr.checks import check
from clipdr.experiments import for_paper
from clipdr.schema import load, validate

SEEN, MODELS, OBJECTIVES = for_paper(SHIPPED, "dimefm"), config.load_models(REPO), config.load_objectives(REPO)
SUITE = config.with_suites(SEEN, REPO, "x")[1]
CORPUS = load(REPO, "config/experiments/dimefm/corpus.yaml", "experiment")


def runs(experiment: dict = CORPUS, scale: dict = SEEN) -> dict:
    seen = config.with_suites(scale, REPO, "scale")[0]
    return {run.row: run for run in check(experiment, seen, MODELS, SUITE, OBJECTIVES, "experiment", "scale")}


def test_corpora_share_sentences_and_their_embeddings():
    found = runs()
    made = all_of(run.artifact for run in found.values())
    stages = [one.stage for one in made.values()]
    assert (stages.count("corpora"), stages.count("sentences"), stages.count("embedded")) == (6, 1, 2)
    by_row = {row: run.artifact.inputs["corpus"] for row, run in found.items()}
    first, random = by_row["constructed, the first image gets a text"], by_row["random texts"]
    assert random.inputs["like"] == first and "images" not in random.inputs and "like" not in first.inputs
    assert by_row["all sentences"].inputs.keys() == {"sentences", "texts"}


def test_a_corpus_follows_what_it_is_chosen_by():
    """Other images or another seed make another corpus, and so another run; a count for the plan does not."""
    plain = runs()
    for path, value, changed in [
        (
            "datasets",
            {word: {**entry, "seed": 1} for word, entry in SEEN["datasets"].items()},
            {"constructed, the first image gets a text", "all sentences"},
        ),
        ("texts//random//seed", 1, {"random texts"}),
        ("sentences//wordnet//about", 5, set()),
    ]:
        other = runs(scale=edited(SEEN, path, value))
        same = {row for row in plain if plain[row].name == other[row].name}
        assert changed.isdisjoint(same) and (changed or same == plain.keys())


@pytest.mark.parametrize(
    "path, value, says",
    [
        (
            "texts//random//from",
            ["wordnets"],
            "texts.random.from: 'wordnets' is not in sentences; did you mean 'wordnet'?",
        ),
        (
            "texts//random//like",
            "construct",
            "texts.random.like: 'construct' is not in texts; did you mean 'constructed'?",
        ),
        ("texts//random", {"from": ["wordnet"], "method": "random", "seed": 0}, "method random needs size, or like"),
        ("texts//sentences//size", 5, "texts.sentences: method all takes no size"),
        ("texts//nearest//like", "random", "texts.nearest: like: the size of random is given or another one's"),
        ("texts", {}, "data.texts 'constructed' is not defined"),
    ],
)
def test_words_of_texts_that_do_not_fit(path, value, says):
    assert says in refused(runs, CORPUS, edited(SEEN, path, value))


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"data": {"captions": ["real"]}}, "data.texts stands in the place of data.captions; take one of them out"),
        ({"objective": {"name": "clip"}}, "data.texts: the objective reads captions that belong to the images"),
    ],
)
def test_texts_beside_what_needs_pairs(settings, says):
    row = {"name": "x", "settings": {"data": {"texts": "random"}}}
    row["settings"] |= {key: {**row["settings"].get(key, {}), **value} for key, value in settings.items()}
    assert says in refused(runs, {**CORPUS, "rows": [row], "comparisons": []})


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("sentences//wordnet", {"kind": "wordnet"}, "sentences.wordnet.packages is missing"),
        ("sentences//captions//file", "x.txt", "sentences.captions.file is not read beside what else stands there"),
        ("texts//constructed", {"from": ["wordnet"], "method": "constructed"}, "texts.constructed.conflict is missing"),
        ("texts//constructed//conflict", "last", "texts.constructed.conflict is 'last'"),
        ("texts//constructed-quarter//share", 1.0, "texts.constructed-quarter.share is 1.0; it must be less than 1"),
    ],
)
def test_keys_of_texts_that_are_refused(path, value, says):
    assert says in refused(validate, edited(SEEN, path, value), "scale", "x")
