"""A drawing that is held out of the pool."""

from dataclasses import dataclass

from clipdr.pool.icons import Concept


@dataclass(frozen=True)
class Held:
    """What it shows, the set that drew it, and its bytes, lossless WebP."""

    concept: Concept
    vendor: str
    image: bytes
