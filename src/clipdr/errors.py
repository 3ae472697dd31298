"""The one exception that a user is meant to read, and the hints it ends with."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the code is wrong: a file, a key, the network. One line: what, where, and the fix."""


def nearest(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the entry of `known` most like `word`, or an empty string if none is like it."""
    lower = {entry.lower(): entry for entry in known}
    match = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[match[0]]!r}?" if match else ""


def listed(names: Iterable) -> str:
    """The names with commas between them."""
    return ", ".join(map(str, names)) or "none"
