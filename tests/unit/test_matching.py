"""Algorithm 1 of DIME-FM against a slow version of itself, its invariants, and what the poster prints."""

import math

import numpy as np
import pytest

from clipdr.corpus.matching import NONE, Blocks, Table, find
from clipdr.errors import UserError


def unit(seed: int, number: int, width: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(number, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slowly(images: np.ndarray, texts: np.ndarray, conflict: str) -> tuple[np.ndarray, list[dict]]:
    """All similarities at once, and plain loops."""
    scores, found, rounds = images.astype(np.float32) @ texts.astype(np.float32).T, {}, []
    left, free, before = list(range(len(images))), set(range(len(texts))), math.inf
    while left and free and len(left) / before < 0.95:
        before, order = len(left), sorted(free)
        matched = {u: order[int(scores[u, order].argmax())] for u in left}
        wanted = list(matched) if conflict == "first" else sorted(matched, key=lambda u: (-scores[u, matched[u]], u))
        got = 0
        for u in wanted:
            if matched[u] in free:
                free.remove(matched[u])
                left.remove(u)
                found[u], got = matched[u], got + 1
        rounds.append({"left": before, "matched": got})
    return np.array([found.get(u, NONE) for u in range(len(images))]), rounds


@pytest.mark.parametrize("conflict", ["first", "best"])
@pytest.mark.parametrize(("images", "texts"), [(40, 200), (200, 40), (60, 60), (1, 1), (3, 500)])
@pytest.mark.parametrize("blocks", [Blocks(7, 9), Blocks(1000, 1000), Blocks(1, 50)])
def test_blocks_find_what_all_at_once_finds(tmp_path, conflict, images, texts, blocks):
    img, txt = unit(images, images), unit(1000 + texts, texts)
    found, rounds = find(img, txt, conflict, blocks, tmp_path)
    expected, expected_rounds = slowly(img, txt, conflict)
    np.testing.assert_array_equal(found, expected)
    assert rounds == expected_rounds


def test_invariants(tmp_path):
    """No text twice; every text that some image likes best is taken in the first round; each round matches someone."""
    img, txt = unit(0, 150), unit(1, 400)
    found, rounds = find(img, txt, "first", Blocks(32, 64), tmp_path)
    taken = found[found != NONE]
    assert len(set(taken)) == len(taken) <= min(len(img), len(txt))
    assert set((img @ txt.T).argmax(axis=1)) <= set(taken) and rounds[0]["matched"] == len(set((img @ txt.T).argmax(1)))
    assert all(one["matched"] >= 1 for one in rounds)
    assert all(b["left"] == a["left"] - a["matched"] for a, b in zip(rounds, rounds[1:], strict=False))


def test_a_tie_goes_to_the_lower_index(tmp_path):
    """Texts that stand several times, within a block and over several."""
    txt = np.repeat(unit(2, 5), 4, axis=0)
    img = unit(2, 5)[[3, 3, 0]]
    found, _ = find(img, txt, "first", Blocks(2, 3), tmp_path)
    np.testing.assert_array_equal(found, [12, 13, 0])


def test_images_of_which_many_want_one_text(tmp_path):
    """All images alike: one text a round, until a round is not worth it."""
    img, txt = np.repeat(unit(3, 1), 50, axis=0), unit(4, 80)
    found, rounds = find(img, txt, "first", Blocks(8, 8), tmp_path)
    assert rounds == [{"left": 50, "matched": 1}]  # 49 of 50 are left, 98 %
    (tmp_path / "few").mkdir()
    few, rounds = find(img[:10], txt, "first", Blocks(8, 8), tmp_path / "few")
    order = np.argsort(-(txt @ img[0]), kind="stable")
    np.testing.assert_array_equal(few, order[:10])
    assert [one["left"] for one in rounds] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1] and (found != NONE).sum() == 1


@pytest.mark.parametrize("killed_after", [1, 3, 6])
def test_a_search_that_was_killed_goes_on(tmp_path, monkeypatch, killed_after):
    """In the first pass, and between rounds; the end is the same."""
    img, txt, blocks = unit(5, 120), unit(6, 130), Blocks(25, 40)
    (tmp_path / "whole").mkdir()
    expected, rounds = find(img, txt, "best", blocks, tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    look, calls = Table._look, []

    def counted(self, *args):
        calls.append(len(calls))
        if len(calls) == 4 * killed_after:
            raise KeyboardInterrupt
        return look(self, *args)

    monkeypatch.setattr(Table, "_look", counted)
    with pytest.raises(KeyboardInterrupt):
        find(img, txt, "best", blocks, tmp_path / "killed")
    monkeypatch.setattr(Table, "_look", look)
    found, again = find(img, txt, "best", blocks, tmp_path / "killed")
    np.testing.assert_array_equal(found, expected)
    assert again == rounds


def test_what_cannot_be_matched(tmp_path):
    img, txt = unit(7, 5), unit(8, 6)
    with pytest.raises(UserError, match="a corpus of 0 texts for 5 images cannot be matched"):
        find(img, txt[:0], "first", Blocks(2, 2), tmp_path)
    broken = txt.copy()
    broken[4] = np.nan
    with pytest.raises(UserError, match="the embedding of text 4 is not finite, or not of unit length"):
        find(img, broken, "first", Blocks(2, 2), tmp_path)
    with pytest.raises(UserError, match="block of 1000000 images by 10000000 texts takes .* GB, and this machine has"):
        Blocks(1_000_000, 10_000_000).check(1_000_000, 10_000_000, 512)


def as_printed(images: np.ndarray, texts: np.ndarray, most_rounds: int = 50) -> tuple[list[int], list[int]]:
    """The poster's Algorithm 1 to the letter, but for line 7, which it prints after its loop: texts; images left."""
    scores = images @ texts.T
    everyone = set(range(len(images)))
    left, free, chosen, before, counts = set(everyone), set(range(len(texts))), [], math.inf, []
    while left and len(left) / before < 0.95 and len(counts) < most_rounds:
        before = len(left)
        counts.append(before)
        order = sorted(free)
        matched = {u: order[int(scores[u, order].argmax())] for u in sorted(left)}
        for u, t in matched.items():
            if t in free:
                left = everyone - {u}  # line 11: of all images, not of those that are left
                free.remove(t)
                chosen.append(t)
    return chosen, counts


def test_what_the_poster_prints_does_not_work(tmp_path):
    """Of many images it stops after a round, since one alone is ever missing; of few, images with a text come back."""
    img, txt = unit(9, 300, 3), unit(10, 600, 3)  # many images want the same text
    chosen, counts = as_printed(img, txt)
    found, rounds = find(img, txt, "first", Blocks(64, 512), tmp_path)
    assert counts == [300] and len(chosen) == rounds[0]["matched"]
    assert len(rounds) > 2 and len(chosen) < 0.9 * (found != NONE).sum()
    chosen, counts = as_printed(img[:10], txt)
    assert counts == [10, 9] and len(chosen) > 10, "more texts than images"
    (tmp_path / "few").mkdir()
    few, _ = find(img[:10], txt, "first", Blocks(64, 512), tmp_path / "few")
    assert (few != NONE).sum() <= 10
