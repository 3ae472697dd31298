"""Captions in a wrong order, as ARO makes them of COCO and Flickr30k (arXiv 2210.01936, Section 3).

Four of each caption: nouns shuffled among the places of nouns and adjectives among those of adjectives; all other words
shuffled; words shuffled within each run of three; the runs shuffled. ARO tags words with spaCy and shuffles with global
generators, so that its captions differ from one installation to another, and were never published. Ours follow from the
caption and a seed, and from the tagger of TextBlob, whose words lie in its package.

All options, the true caption too, are written as ARO writes them: lower case, without .!"()*#:;~, at most 30 words.
"""

import re
from collections.abc import Sequence

import numpy as np

from clipdr.files import sha256

DROPPED = re.compile(r"([.!\"()*#:;~])")
MOST_WORDS = 30
RUN = 3


def negatives(captions: Sequence[str], seed: int) -> list[list[str]]:
    """Four wrong orders of each caption; of short captions some equal the true one, as in ARO.

    A caption's depend on its words and the seed, not on the captions beside it.
    """
    return [_negatives(caption, seed) for caption in captions]


def written(caption: str) -> str:
    """A caption as ARO writes its options."""
    return " ".join(DROPPED.sub(" ", caption.lower()).split()[:MOST_WORDS])


def _negatives(caption: str, seed: int) -> list[str]:
    words, tags = _tagged(caption)
    rng = np.random.default_rng([seed, int(sha256(caption.encode())[:8], 16)])
    nouns, adjectives = ([n for n, tag in enumerate(tags) if tag.startswith(kind)] for kind in ("NN", "JJ"))
    others = [n for n in range(len(words)) if n not in {*nouns, *adjectives}]
    runs = [words[start : start + RUN] for start in range(0, len(words), RUN)]
    orders = [
        _shuffled(_shuffled(words, nouns, rng), adjectives, rng),
        _shuffled(words, others, rng),
        [word for run in runs for word in rng.permutation(run).tolist()],
        [word for number in rng.permutation(len(runs)) for word in runs[number]],
    ]
    return [written(" ".join(order)) for order in orders]


def _tagged(caption: str) -> tuple[list[str], list[str]]:
    """Words and their tags of the Penn treebank; a mark of punctuation is a word."""
    from textblob.taggers import PatternTagger

    pairs = PatternTagger().tag(caption, tokenize=True)
    return [word for word, _ in pairs], [tag for _, tag in pairs]


def _shuffled(words: list[str], places: list[int], rng: np.random.Generator) -> list[str]:
    """The words at these places in another order, all others where they are."""
    found = list(words)
    for place, source in zip(places, rng.permutation(places).tolist(), strict=True):
        found[place] = words[source]
    return found
