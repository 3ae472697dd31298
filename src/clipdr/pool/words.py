"""Human texts of a concept: what a person might have written beside the picture.

An image of the pool has one caption, as under-descriptive as alt text on the web often is: "racehorse" for a horse,
"potassium, fruit" for a banana. Models that stand for those trained on larger, cleaner corpora see all the texts.
"""

import re

import numpy as np

from clipdr.pool.icons import Concept


def spoken(shortcode: str) -> str:
    """A shortcode as words: `beer_mugs2` -> `beer mugs`."""
    return re.sub(r"[_\-0-9]+", " ", shortcode).strip()


def caption(concept: Concept, name_share: float, rng: np.random.Generator) -> str:
    """One human text: with probability `name_share` a name (label or shortcode), else one to three tags."""
    if rng.random() < name_share or not concept.tags:
        names = _names(concept)
        return names[rng.integers(len(names))]
    return _tags(concept, rng)


def texts(concept: Concept, rng: np.random.Generator) -> list[str]:
    """Varied human texts, each once: every name, as many draws of tags, and every name followed by a draw of tags."""
    names = _names(concept)
    tags = [_tags(concept, rng) for _ in names] if concept.tags else []
    both = [f"{name}, {_tags(concept, rng)}" for name in names] if concept.tags else []
    return list(dict.fromkeys(names + tags + both))


def descriptions(concept: Concept) -> list[str]:
    """Up to two texts of a retrieval pair: the label with its first two tags, and with its last two.

    The label stands first: it keeps the texts of different concepts apart, also where a model cuts long texts.
    """
    tags = [tag for tag in concept.tags if tag != concept.label]
    return list(dict.fromkeys(", ".join([concept.label, *some]) for some in (tags[:2], tags[-2:])))


def _names(concept: Concept) -> list[str]:
    return [concept.label, *sorted({spoken(code) for code in concept.shortcodes} - {"", concept.label})]


def _tags(concept: Concept, rng: np.random.Generator) -> str:
    count = min(len(concept.tags), int(rng.integers(1, 4)))
    return ", ".join(rng.choice(concept.tags, count, replace=False))
