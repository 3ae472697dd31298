"""The one exception that a user is meant to read, and the hints it ends with."""

import difflib
from collections.abc import Iterable, Mapping


class UserError(Exception):
    """Something outside the code is wrong: a file, a key, the network. One line: what, where, and the fix."""


def nearest(word: object, known: Iterable[str], n: int = 1) -> str:
    """`; did you mean 'x'?` with the entries of `known` most like `word`, at most n, or nothing if none is like it."""
    lower = {entry.lower(): entry for entry in known}
    matches = difflib.get_close_matches(str(word).lower(), lower, n=n, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(lower[match]) for match in matches)}?" if matches else ""


def listed(names: Iterable) -> str:
    """The names with commas between them."""
    return ", ".join(map(str, names)) or "none"


def look_up(key: str, word: str, known: Mapping, where: str):
    """What `word` stands for in `known`. Raises UserError that names `key`, its fix, and `where` words are defined."""
    if word not in known:
        hint = f"{nearest(word, known)} ({where} has {listed(known) if known else 'nothing'})"
        raise UserError(f"{key} {word!r} is not defined{hint}")
    return known[word]
