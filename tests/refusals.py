"""For tests of what configuration refuses."""

import copy

import pytest

from clipdr.errors import UserError


def refused(function, *args, **options) -> str:
    """The message of the UserError that the call raises, which is one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edited(data: dict, path: str, value: object) -> dict:
    """A copy of `data` with the value at a path such as pool/styles/x; None removes it."""
    data = copy.deepcopy(data)
    *parents, last = path.split("//")
    inner = data
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    last = int(last) if isinstance(inner, list) else last
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return data
