"""An artifact's name covers its settings and the whole chain that it is made from."""

import hashlib
import json

import pytest

from clipdr.artifacts import SLUG_LENGTH, all_of, artifact, inputs_of


def digest(settings: object, inputs: dict) -> str:
    """The hash in a name, computed anew."""
    text = json.dumps([settings, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


POOL = artifact("pool", "emoji", {"seed": 0})
CHOSEN = artifact("subset", "12M", {"size": 4}, pool=POOL)


def test_a_name_is_the_slug_and_a_hash_of_settings_and_inputs():
    assert POOL.path == f"pool/emoji-{digest({'seed': 0}, {})}"
    assert CHOSEN.name == f"12M-{digest({'size': 4}, {'pool': POOL.path})}"
    several = artifact("reinforced", "x", {}, parts=[POOL, CHOSEN])
    assert several.name == f"x-{digest({}, {'parts': [POOL.path, CHOSEN.path]})}"


@pytest.mark.parametrize(
    "other",
    [
        artifact("subset", "12M", {"size": 5}, pool=POOL),
        artifact("subset", "12M", {"size": 4, "more": None}, pool=POOL),
        artifact("subset", "12M", {"size": 4}),
        artifact("subset", "12M", {"size": 4}, pools=POOL),
        artifact("subset", "12M", {"size": 4}, pool=[POOL]),
        artifact("subset", "12M", {"size": 4}, pool=artifact("pool", "emoji", {"seed": 1})),
        artifact("subset", "12M", {"size": 4}, pool=artifact("pool", "clipart", {"seed": 0})),
        artifact("subset", "12M", {"size": 4}, pool=artifact("tokenizer", "emoji", {"seed": 0})),
    ],
)
def test_another_setting_or_input_is_another_name(other):
    assert other.name != CHOSEN.name


def test_the_order_of_keys_is_nothing_and_that_of_inputs_in_a_list_is():
    first, second = (
        artifact("x", "x", {"a": 1, "b": {"c": 1, "d": 2}}),
        artifact("x", "x", {"b": {"d": 2, "c": 1}, "a": 1}),
    )
    assert first == second and hash(first) == hash(second)
    one, other = (artifact("x", "x", {}, parts=parts) for parts in ([POOL, CHOSEN], [CHOSEN, POOL]))
    assert one != other


def test_an_artifact_owns_its_settings_which_are_json():
    told = {"betas": (0.9, 0.95), "augmentation": {"views": 2}}
    made = artifact("zoo", "x", told)
    told["augmentation"]["views"] = 3
    assert made.settings == {"betas": [0.9, 0.95], "augmentation": {"views": 2}}
    assert made.name == artifact("zoo", "x", made.settings).name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_settings_that_are_no_json_are_refused(value):
    with pytest.raises((ValueError, TypeError)):
        artifact("x", "x", {"a": value})


def test_a_long_slug_keeps_its_hash_and_fits_in_a_file_name():
    one, other = (artifact("runs", "x" * 300, {"seed": seed}) for seed in (0, 1))
    assert one.name != other.name and len(one.name) == SLUG_LENGTH + 9 < 255


def test_all_of_holds_each_artifact_once_after_what_it_is_made_from():
    zoo = [artifact("zoo", name, {}, pool=POOL) for name in "ab"]
    top = artifact("reinforced", "x", {}, subset=CHOSEN, teachers=zoo)
    assert list(inputs_of(top)) == [CHOSEN, *zoo]
    found = all_of([zoo[0], top])
    assert len(found) == 5 and all(found[path].path == path for path in found)
    order = list(found)
    assert all(order.index(made.path) < order.index(one.path) for one in found.values() for made in inputs_of(one))
    assert all_of([]) == {}
