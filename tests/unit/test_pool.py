"""The pool on made-up packages: which drawing belongs to which concept, what is held out, and what is refused."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from held_out import held_out, opened
from PIL import Image

from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.evaluate.tasks import decode
from clipdr.files import sha256
from clipdr.pool.emoji import build, render
from clipdr.pool.icons import Concept, IconSet, _join, choose, load_concepts, load_set
from clipdr.pool.words import caption, descriptions, spoken, texts

# Rows of Unicode's table, whose labels and shortcodes overlap like the real ones.
EMOJI = [
    ("1F42F", "tiger face", "animal-mammal", ["animal", "big", "cat", "tiger"], ["tiger"]),
    ("1F405", "tiger", "animal-mammal", ["animal", "cat", "zoo"], ["tiger2"]),
    ("1F339", "rose", "plant-flower", ["flower", "thorn"], ["rose"]),
    ("1F34C", "banana", "food-fruit", ["fruit", "potassium"], ["banana"]),
    ("2708-FE0F", "airplane", "transport-air", [], ["airplane_small", "airplane2"]),
    ("1F600", "grinning face", "face-smiling", ["grin"], ["grinning"]),  # of no subgroup that the pool asks for
]
SUBGROUPS = {"animal-mammal": "animal", "plant-flower": "plant", "food-fruit": "plant", "transport-air": "vehicle"}
VENDORS, STYLES = ["red", "green", "blue"], {"unseen-vendor": "other", "monochrome": "black"}
POOL = {
    "subgroups": SUBGROUPS,
    "concepts": 4,
    "vendors": VENDORS,
    "finishes": {},
    "fine_grained": "animal",
    "held_out": {"val": 1, "dev": 1},
    "min_vendors": 2,
    "styles": STYLES,
    "required_styles": ["monochrome"],
    "name_share": 0.5,
    "image_size": 24,
    "shard_size": 3,
    "seed": 0,
}
# Enough of them for every task, among them things of several colours.
THINGS = [f"{colour} {thing}" for colour in ("red", "green", "blue", "black") for thing in ("heart", "book", "ball")]
BUILT = POOL | {"subgroups": SUBGROUPS | {"geometric": "shape"}, "concepts": 16, "min_vendors": 3}
COLOURS = {"red": "#e11", "green": "#1a1", "blue": "#22e", "other": "#fa0", "black": "#000"}
# Icon names as sets choose them: after labels, with an alias, and after shortcodes.
ICONS = {
    "red": ["tiger", "tiger-face", "rose", "banana", "airplane"],
    "green": ["tiger", "tiger-face", "rose", "banana", "airplane"],
    "blue": ["tiger2", "tiger-face", "rose", "airplane-small"],  # no banana
    "other": ["tiger", "rose"],
    "black": ["tiger", "tiger-face", "rose", "banana", "airplane"],
}


def _thing(number: int, colour: str) -> str:
    return f'<circle cx="{2 + number}" cy="8" r="2" fill="{colour}"/>'


def _body(number: int, colour: str) -> str:
    return f'<rect x="1" y="{1 + number}" width="{5 + 2 * number}" height="4" fill="{colour}"/>'


def _write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _write_set(sources: Path, name: str, icons: dict, aliases: dict | None = None, licence: str = "MIT") -> None:
    folder = sources / "@iconify-json" / name
    _write(folder / "icons.json", {"icons": icons, "aliases": aliases or {}, "width": 16, "height": 16})
    _write(folder / "info.json", {"author": {"name": name}, "license": {"spdx": licence}})


@pytest.fixture()
def sources(tmp_path):
    """Packages as `fetch` leaves them: Iconify sets and emojibase."""
    return _write_sources(tmp_path / "sources")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The packages, and what is built of them."""
    found = _write_sources(tmp_path_factory.mktemp("built") / "sources")
    return found, _built(found)


def _write_sources(folder: Path) -> Path:
    words = folder / "emojibase-data/en"
    for name, icons in ICONS.items():
        drawn = {icon: {"body": _body(number, COLOURS[name])} for number, icon in enumerate(icons)}
        if name != "other":
            drawn |= {thing: {"body": _thing(number, COLOURS[name])} for number, thing in enumerate(THINGS)}
        _write_set(folder, name, drawn)
    keys = sorted({row[2] for row in EMOJI} | {"sky", "geometric"})
    _write(words / "messages.json", {"subgroups": [{"key": key, "order": i} for i, key in enumerate(keys)]})
    rows = [
        {"hexcode": code, "label": label, "tags": tags, "order": i, "subgroup": keys.index(subgroup)}
        for i, (code, label, subgroup, tags, _) in enumerate(EMOJI)
    ]
    things = [
        {"hexcode": f"1FA{number:02}", "label": label, "tags": label.split()[1:], "order": 50 + number}
        | {"subgroup": keys.index("geometric")}
        for number, label in enumerate(THINGS)
    ]
    # regional indicators have no subgroup, and some rows no tags
    _write(words / "data.json", [*rows, *things, {"hexcode": "1F1E6", "label": "regional indicator A", "order": 99}])
    for platform in ("github", "iamcal", "joypixels", "emojibase", "cldr"):
        _write(words / f"shortcodes/{platform}.json", {})
    # one platform says a list, another a string, and drops the variation selector
    _write(words / "shortcodes/github.json", {code: codes for code, *_, codes in EMOJI if "-" not in code})
    _write(words / "shortcodes/cldr.json", {"2708": EMOJI[4][4][0]})
    return folder


def _concepts(sources: Path, subgroups: dict = SUBGROUPS) -> dict[str, Concept]:
    found = load_concepts(sources, [load_set(sources, name) for name in ICONS], subgroups)
    return {concept.label: concept for concept in found}


def test_concepts_are_those_of_the_subgroups_in_unicode_order(sources):
    concepts = _concepts(sources)
    assert list(concepts) == ["tiger face", "tiger", "rose", "banana", "airplane"]
    assert [concept.coarse for concept in concepts.values()] == ["animal", "animal", "plant", "plant", "vehicle"]
    assert concepts["airplane"].shortcodes == ("airplane_small",) and concepts["airplane"].tags == ()


def test_icons_are_joined_by_label_before_shortcode(sources):
    """GitHub calls the tiger's face `tiger`; a set that calls the tiger `tiger` means the tiger."""
    concepts = _concepts(sources)
    for name in ("red", "green", "black"):
        assert concepts["tiger"].icons[name] == "tiger" and concepts["tiger face"].icons[name] == "tiger-face"
    assert concepts["tiger"].icons["other"] == "tiger"
    assert "other" not in concepts["tiger face"].icons  # its shortcode is another concept's label


def test_shortcodes_join_where_no_label_does(sources):
    concepts = _concepts(sources)
    assert concepts["tiger"].icons["blue"] == "tiger2"
    assert concepts["airplane"].icons["blue"] == "airplane-small"  # hyphen or underscore
    assert "blue" not in concepts["banana"].icons


def test_a_shortcode_joins_one_concept_only(sources):
    path = sources / "emojibase-data/en/shortcodes/iamcal.json"
    _write(path, {"1F339": ["blossom_small"], "1F34C": ["blossom_small"]})
    _write_set(sources, "other", {"blossom-small": {"body": _body(0, "red")}})
    concepts = _concepts(sources)
    assert concepts["rose"].icons["other"] == "blossom-small" and "other" not in concepts["banana"].icons


def test_an_alias_draws_its_parent(sources):
    icons = {"feline": {"body": _body(0, "red")}}
    _write_set(sources, "red", icons, {"tiger": {"parent": "big-cat"}, "big-cat": {"parent": "feline"}})
    icon_set = load_set(sources, "red")
    assert _concepts(sources)["tiger"].icons["red"] == "tiger"
    assert icon_set.svg("tiger") == icon_set.svg("feline")


@pytest.mark.parametrize(
    "aliases, message",
    [
        ({"tiger": {"parent": "feline", "hFlip": True}}, "'tiger' is a turned copy"),
        ({"tiger": {"parent": "gone"}}, "glyph 'tiger' has no drawing"),
        ({"tiger": {"parent": "lion"}, "lion": {"parent": "tiger"}}, "glyph 'tiger' has no drawing"),
        ({}, "glyph 'tiger' has no drawing"),
    ],
)
def test_a_glyph_that_is_not_there(sources, aliases, message):
    _write_set(sources, "red", {"feline": {"body": _body(0, "red")}}, aliases)
    with pytest.raises(UserError, match=f"red: .*{message}"):
        load_set(sources, "red").svg("tiger")


def test_the_view_box_is_the_icons_else_the_sets(sources):
    icons = {"a": {"body": "<g/>"}, "b": {"body": "<g/>", "left": 1, "top": 2, "width": 3, "height": 4}}
    _write_set(sources, "red", icons)
    icon_set = load_set(sources, "red")
    assert 'viewBox="0 0 16 16"' in icon_set.svg("a") and 'viewBox="1 2 3 4"' in icon_set.svg("b")


@pytest.mark.parametrize("licence", ["CC-BY-SA-4.0", "GPL-3.0", "OFL-1.1"])
def test_share_alike_sets_are_refused(sources, licence):
    _write_set(sources, "red", {}, licence=licence)
    with pytest.raises(UserError, match=f"red is licensed {licence}"):
        load_set(sources, "red")


def test_what_was_not_fetched(sources):
    with pytest.raises(UserError, match="pink is missing; add @iconify-json/pink"):
        load_set(sources, "pink")
    (sources / "@iconify-json/red/icons.json").unlink()
    with pytest.raises(UserError, match="icons.json is missing"):
        load_set(sources, "red")


def test_an_unknown_subgroup(sources):
    with pytest.raises(UserError, match="no subgroup 'animal-dragon'; it has animal-mammal"):
        load_concepts(sources, [], {"animal-dragon": "animal"})


def test_choose_takes_what_most_sets_draw(sources):
    concepts = list(_concepts(sources).values())
    assert [c.label for c in choose(concepts, POOL | {"concepts": 2})] == ["tiger", "rose"]  # drawn by all five sets
    assert len(choose(concepts, POOL | {"concepts": 5})) == 5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"min_vendors": 3, "concepts": 5}, "asks for 5 but only 4 .*'banana' lacks blue"),
        ({"required_styles": ["unseen-vendor"], "concepts": 5}, "asks for 5 but only 2 .* lacks other"),
        ({"concepts": 6}, "asks for 6 but only 5 .*no more concepts"),
    ],
)
def test_too_few_vendors(sources, change, message):
    with pytest.raises(UserError, match=message):
        choose(list(_concepts(sources).values()), POOL | change)


def test_render_is_the_drawing_on_white():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><rect width="10" height="10" fill="#f00"/></svg>'
    image = Image.open(io.BytesIO(render(svg, 20)))
    assert (image.size, image.mode, image.format) == ((20, 20), "RGB", "WEBP")
    pixels = np.full((20, 20, 3), 255, np.uint8)
    pixels[5:15, :10] = (255, 0, 0)  # centred, its proportions kept
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("body", ["", "<g/>", '<rect width="9" height="9" fill="none"/>'])
def test_an_empty_drawing(body):
    with pytest.raises(UserError, match="draws nothing"):
        render(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>', 16)


def _built(sources: Path, **changes) -> Path:
    folder = sources.parent / "-".join(["built", *map(str, changes.values())])
    build(sources, BUILT | changes, folder / "pool", folder / "tasks")
    return folder


def _built_of(sources: Path) -> dict[str, Concept]:
    """The concepts that `_built` has, by label."""
    return {c.label: c for c in _concepts(sources, BUILT["subgroups"]).values() if c.label != "banana"}


def _pool_samples(folder: Path) -> list[dict]:
    return [sample for shard in sorted(folder.glob("pool/*.tar")) for sample in read_shard(shard)]


def _task_samples(folder: Path, task: str) -> list[dict]:
    return list(read_shard(folder / f"tasks/wds_emoji-{task}/test/0.tar"))


DRAWINGS = {
    "val": 16,
    "dev": 16,
    "coarse": 16,
    "fine-grained": 2,
    "unseen-vendor": 2,
    "monochrome": 16,
    "retrieval": 16,
}


def test_the_pool_and_its_index_agree(built):
    sources, folder = built
    index, samples = pd.read_parquet(folder / "pool/index.parquet"), _pool_samples(folder)
    drawn = {c: sum(name in concept.icons for name in VENDORS) for c, concept in _built_of(sources).items()}
    assert len(samples) == len(index) == sum(drawn[label] - 2 for label in index["label"].unique())
    assert list(index["uid"]) == [sample["__key__"] for sample in samples] == sorted(set(index["uid"]))
    assert list(index["shard"]) == [f"{i // 3:05d}.tar" for i in range(len(index))]
    for row, sample in zip(index.to_dict("records"), samples, strict=True):
        details = json.loads(sample["json"])
        assert sample.keys() == {"__key__", "webp", "txt", "json"}
        assert sample["txt"].decode() == row["caption"]
        assert details == {key: row[key] for key in ("uid", "sha256", "concept", "label", "vendor")} | {
            "texts": list(row["texts"])
        }
        assert row["sha256"] == sha256(sample["webp"])
        assert Image.open(io.BytesIO(sample["webp"])).size == (24, 24)


@pytest.mark.parametrize("seed", range(3))
def test_no_held_out_drawing_is_in_the_pool(sources, seed):
    folder = _built(sources, seed=seed)
    trained = {sha256(sample["webp"]) for sample in _pool_samples(folder)}
    for task, number in DRAWINGS.items():
        unseen = [sha256(sample["webp"]) for sample in _task_samples(folder, task)]
        assert len(unseen) == number
        assert not trained & set(unseen)
    splits = [{sha256(sample["webp"]) for sample in _task_samples(folder, split)} for split in ("val", "dev")]
    assert not splits[0] & splits[1]


@pytest.mark.parametrize("task", DRAWINGS)
def test_tasks_are_read_by_the_evaluator(built, task):
    sources, folder = built
    kind = "retrieval" if task == "retrieval" else "classification"
    found = opened(folder / "tasks", f"emoji/{task}", kind)
    concepts = _built_of(sources)
    if kind == "classification":
        classes = {"coarse": ["animal", "plant", "shape", "vehicle"], "fine-grained": ["tiger face", "tiger"]}
        assert list(found.classes) == classes.get(task, list(concepts))
        assert found.templates == ("{c}",)
    for data, annotation in held_out(folder / "tasks", f"emoji/{task}", kind):
        owner = _owner(sources, data, concepts)
        assert decode(data, task).size == (24, 24)
        if task == "retrieval":
            assert annotation == descriptions(owner)
        else:
            assert found.classes[annotation] == (owner.coarse if task == "coarse" else owner.label)


def _owner(sources: Path, data: bytes, concepts: dict[str, Concept]) -> Concept:
    """The concept whose drawing this is, found by drawing all of them again."""
    for concept in concepts.values():
        for name, icon in concept.icons.items():
            if render(load_set(sources, name).svg(icon), 24) == data:
                return concept
    raise AssertionError("nobody drew this")


def _bytes(folder: Path) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_seed_decides(sources):
    first = _bytes(_built(sources, seed=0))
    again = sources.parent / "again"
    build(sources, BUILT, again / "pool", again / "tasks")
    assert _bytes(again) == first
    unseen = [tuple(s["webp"] for s in _task_samples(_built(sources, seed=seed), "val")) for seed in (1, 2)]
    assert unseen[0] != unseen[1]


def test_one_picture_at_two_vendors_on_both_sides_is_refused(sources):
    """Told apart by the bytes of the drawing: `green` ships the pictures of `red`."""
    shutil.copy(sources / "@iconify-json/red/icons.json", sources / "@iconify-json/green/icons.json")
    with pytest.raises(UserError, match=r"(red|green) holds out the drawing of \w+ that (red|green) trains on"):
        _built(sources)
    assert {path.name for path in sources.parent.iterdir()} == {"sources"}


def test_a_pool_that_cannot_be_drawn_leaves_nothing(sources):
    _write_set(sources, "black", {icon: {"body": "<g/>"} for icon in [*ICONS["black"], *THINGS]})
    with pytest.raises(UserError, match="draws nothing"):
        _built(sources)
    assert {path.name for path in sources.parent.iterdir()} == {"sources"}


ROSE = Concept("1F339", "rose", "plant", ("rose", "red_rose2", "flower-red"), ("flower", "thorn", "garden", "love"), {})


def _names(concept: Concept) -> set[str]:
    return {concept.label} | {re.sub("[-_]", " ", code).rstrip("0123456789") for code in concept.shortcodes}


def _is_tags(text: str) -> bool:
    words = text.split(", ")
    return 1 <= len(words) <= 3 and len(set(words)) == len(words) and set(words) <= set(ROSE.tags)


def test_captions_are_human_texts_of_the_concept():
    random = np.random.default_rng(0)
    drawn = [caption(ROSE, 0.5, random) for _ in range(400)]
    assert all(text in _names(ROSE) or _is_tags(text) for text in drawn)
    assert set(drawn) >= _names(ROSE) == {"rose", "red rose", "flower red"}
    assert 160 < sum(text in _names(ROSE) for text in drawn) < 240  # four standard deviations of the half


def test_name_share_at_its_ends():
    random = np.random.default_rng(0)
    assert all(caption(ROSE, 1, random) in _names(ROSE) for _ in range(50))
    assert all(_is_tags(caption(ROSE, 0, random)) for _ in range(50))
    bare = Concept("2708", "airplane", "vehicle", (), (), {})
    assert caption(bare, 0, random) == "airplane" and texts(bare, random) == ["airplane"]


def test_texts_are_varied_and_each_once():
    found = texts(ROSE, np.random.default_rng(0))
    assert found[0] == "rose" and len(found) == len(set(found)) and _names(ROSE) <= set(found)
    for text in found:
        name, _, tags = text.partition(", ")
        assert text in _names(ROSE) or _is_tags(text) or (name in _names(ROSE) and _is_tags(tags))


def test_descriptions_begin_with_the_label_and_differ():
    assert descriptions(ROSE) == ["rose, flower, thorn", "rose, garden, love"]
    assert descriptions(replace(ROSE, tags=("flower", "rose"))) == ["rose, flower"]


def test_a_set_with_a_side_view_draws_the_animal_there():
    """fxemoji draws the tiger as "tigerside" and its face as "tiger"."""
    icons = IconSet("fx", {"tiger": {}, "tigerside": {}}, {}, (16, 16))
    emoji = [{"hexcode": "1", "label": "tiger face"}, {"hexcode": "2", "label": "tiger"}]
    assert _join(icons, emoji, {"1": ("tiger",), "2": ("tiger2",)}) == {"2": "tigerside"}


@pytest.mark.parametrize(
    "code, words", [("beer_mugs2", "beer mugs"), ("red-rose", "red rose"), ("8ball", "ball"), ("100", "")]
)
def test_spoken(code, words):
    assert spoken(code) == words
