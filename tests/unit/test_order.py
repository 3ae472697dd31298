"""Wrong orders of captions against what ARO says of each of the four."""

from collections import Counter

import pytest

from clipdr.evaluate.order import negatives, written

CAPTION = "A tall man with a red shirt and the brown horse near an old barn"
# By hand, after the Penn treebank: nouns, adjectives, and all others.
NOUNS, ADJECTIVES = (2, 6, 10, 14), (1, 5, 9, 13)
OTHERS = (0, 3, 4, 7, 8, 11, 12)


@pytest.fixture(scope="module")
def found() -> list[list[str]]:
    """The four orders of the caption, for many seeds, as words."""
    return [[text.split() for text in negatives([CAPTION], seed)[0]] for seed in range(60)]


def words() -> list[str]:
    return written(CAPTION).split()


def at(text: list[str], places) -> list[str]:
    return [text[place] for place in places]


def test_every_order_has_the_words_of_the_caption(found):
    assert all(Counter(text) == Counter(words()) for four in found for text in four)


def test_nouns_and_adjectives_keep_to_their_places(found):
    moved = [four[0] for four in found]
    assert all(at(text, OTHERS) == at(words(), OTHERS) for text in moved)
    for places in (NOUNS, ADJECTIVES):
        assert all(Counter(at(text, places)) == Counter(at(words(), places)) for text in moved)
        assert len({tuple(at(text, places)) for text in moved}) > 15  # of 24


def test_all_other_words_are_shuffled_in_the_second(found):
    kept = sorted([*NOUNS, *ADJECTIVES])
    assert all(at(four[1], kept) == at(words(), kept) for four in found)
    assert len({tuple(at(four[1], OTHERS)) for four in found}) > 40


def test_the_third_shuffles_within_runs_of_three(found):
    for _, _, text, _ in found:
        assert all(Counter(text[n : n + 3]) == Counter(words()[n : n + 3]) for n in range(0, 15, 3))
    assert len({tuple(four[2]) for four in found}) > 40


def test_the_fourth_shuffles_the_runs(found):
    runs = Counter(tuple(words()[n : n + 3]) for n in range(0, 15, 3))
    assert all(Counter(tuple(four[3][n : n + 3]) for n in range(0, 15, 3)) == runs for four in found)
    assert len({tuple(four[3]) for four in found}) > 30


def test_a_captions_orders_follow_from_it_and_the_seed_alone():
    alone, among = negatives([CAPTION], 3)[0], negatives(["A dog runs.", CAPTION, CAPTION], 3)
    assert alone == among[1] == among[2] != negatives([CAPTION], 4)[0]


@pytest.mark.parametrize(
    "caption, option",
    [
        ('A "Big" dog, (brown) runs!', "a big dog, brown runs"),
        ("One; two: three... #four ~five* ", "one two three four five"),
        (" ".join(["word"] * 40), " ".join(["word"] * 30)),
    ],
)
def test_written_as_aro_writes(caption, option):
    assert written(caption) == option


def test_one_word_has_one_order():
    assert negatives(["Dog"], 0) == [["dog"] * 4]
