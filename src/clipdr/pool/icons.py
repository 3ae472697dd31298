"""Which drawing belongs to which concept, and what people call it.

A concept is a Unicode emoji; a vendor is an icon set that draws it. Sets name their icons after the concept's CLDR
label, or after a shortcode; a shortcode counts only where no other concept owns that icon by label, because
platforms reuse names ("tiger" is the tiger for one and the tiger's face for another).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from clipdr.errors import UserError
from clipdr.files import sha256
from clipdr.pool.fetch import WORDS

LICENCES = {"Apache-2.0", "MIT", "CC-BY-3.0", "CC-BY-4.0"}  # share-alike sets stay out
PLATFORMS = ("github", "iamcal", "joypixels", "emojibase", "cldr")


@dataclass(frozen=True)
class Concept:
    """A Unicode emoji: its code, CLDR label, coarse class, human texts, and each set's icon name."""

    hexcode: str
    label: str
    coarse: str
    shortcodes: tuple[str, ...]
    tags: tuple[str, ...]
    icons: dict[str, str]


@dataclass(frozen=True)
class IconSet:
    """One vendor's drawings in Iconify's JSON format."""

    name: str
    icons: dict[str, dict]
    aliases: dict[str, dict]
    size: tuple[int, int]

    def svg(self, icon: str) -> str:
        """The SVG document of an icon or of an alias.

        Raises:
            UserError: the set has no such drawing.
        """
        name, seen = icon, set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            if self.aliases[name].keys() - {"parent"}:
                raise UserError(
                    f"{self.name}: icon {name!r} is a turned copy of another; take {self.name} out of the scale"
                )
            name = self.aliases[name]["parent"]
        drawing = self.icons.get(name, {})
        if not drawing.get("body"):
            raise UserError(f"{self.name}: the glyph {icon!r} has no drawing; fetch the packages again or drop the set")
        width, height = drawing.get("width", self.size[0]), drawing.get("height", self.size[1])
        left, top = drawing.get("left", 0), drawing.get("top", 0)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{drawing["body"]}</svg>'
        )


def load_set(sources: Path, name: str) -> IconSet:
    """Read one set from `sources/@iconify-json/<name>/`.

    Raises:
        UserError: the set was not fetched, or its licence is not one we may redistribute under.
    """
    folder = sources / "@iconify-json" / name
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; add @iconify-json/{name} to the pool's package.json and lock file")
    icons, info = _read(folder / "icons.json"), _read(folder / "info.json")
    licence = info["license"]["spdx"]
    if licence not in LICENCES:
        raise UserError(
            f"{name} is licensed {licence}; use sets under {', '.join(sorted(LICENCES))} in the scale's pool"
        )
    size = (icons.get("width", 16), icons.get("height", 16))
    return IconSet(name, icons["icons"], icons.get("aliases", {}), size)


def load_concepts(sources: Path, sets: list[IconSet], subgroups: dict[str, str]) -> list[Concept]:
    """All concepts of the given CLDR subgroups, in Unicode order, each with the icons that the sets draw of it.

    Args:
        subgroups: CLDR subgroup -> coarse class.

    Raises:
        UserError: a subgroup that CLDR does not have.
    """
    words = sources / WORDS / "en"
    emoji = _read(words / "data.json")
    keys = {entry["order"]: entry["key"] for entry in _read(words / "messages.json")["subgroups"]}
    for name in subgroups:
        if name not in keys.values():
            raise UserError(f"pool.subgroups: CLDR has no subgroup {name!r}; it has {', '.join(sorted(keys.values()))}")
    platforms = [_read(words / "shortcodes" / f"{platform}.json") for platform in PLATFORMS]
    codes = {entry["hexcode"]: _shortcodes(entry["hexcode"], platforms) for entry in emoji}
    icons = {icon_set.name: _join(icon_set, emoji, codes) for icon_set in sets}
    return [
        Concept(
            hexcode=entry["hexcode"],
            label=entry["label"],
            coarse=subgroups[keys[entry["subgroup"]]],
            shortcodes=codes[entry["hexcode"]],
            tags=tuple(entry.get("tags", [])),
            icons={name: found[entry["hexcode"]] for name, found in icons.items() if entry["hexcode"] in found},
        )
        for entry in emoji
        if keys.get(entry.get("subgroup")) in subgroups
    ]


def choose(concepts: list[Concept], pool: dict) -> list[Concept]:
    """The `pool.concepts` concepts that most sets draw, ties broken by a hash of concept and seed, in Unicode order.

    Every one is drawn by at least `pool.min_vendors` vendors, where finishes of one design count once, and by the
    styles listed in `pool.required_styles`.

    Raises:
        UserError: fewer such concepts than asked for; names the first that misses and what it lacks.
    """
    required = [pool["styles"][style] for style in pool["required_styles"]]

    def lacks(concept: Concept) -> list[str]:
        missing = [name for name in pool["vendors"] if name not in concept.icons]
        designs = {pool["finishes"].get(name, name) for name in pool["vendors"] if name in concept.icons}
        enough = len(designs) >= pool["min_vendors"]
        return ([] if enough else missing) + [name for name in required if name not in concept.icons]

    ranked = sorted(concepts, key=lambda c: (len(lacks(c)), -len(c.icons), _rank(c.hexcode, pool["seed"])))
    chosen = [concept for concept in ranked if not lacks(concept)][: pool["concepts"]]
    if len(chosen) < pool["concepts"]:
        first = next(
            (f"{c.label!r} lacks {', '.join(lacks(c))}" for c in ranked if lacks(c)), "there are no more concepts"
        )
        raise UserError(
            f"pool.concepts asks for {pool['concepts']} but only {len(chosen)} are drawn by {pool['min_vendors']} "
            f"vendors and the required styles ({first}); lower pool.concepts or pool.min_vendors, or add subgroups"
        )
    return [concept for concept in concepts if concept in chosen]


def _rank(text: str, seed: int) -> str:
    return sha256(f"{seed}:{text}".encode())


def _join(icon_set: IconSet, emoji: list[dict], codes: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """hexcode -> icon name: by label first, then by a shortcode that no label and no earlier concept claimed."""
    names = {_squash(name): name for name in sorted([*icon_set.aliases, *icon_set.icons])}
    labels = {entry["hexcode"]: _squash(entry["label"]) for entry in emoji}
    # A set that has "tigerside" draws the tiger there, and its face under "tiger".
    found = {code: names.get(f"{key}side", names[key]) for code, key in labels.items() if key in names}
    taken = set(labels.values())
    for entry in emoji:
        if entry["hexcode"] not in found:
            free = [key for code in codes[entry["hexcode"]] if (key := _squash(code)) in names and key not in taken]
            if free:
                found[entry["hexcode"]] = names[free[0]]
                taken.add(free[0])
    return found


def _shortcodes(hexcode: str, platforms: list[dict]) -> tuple[str, ...]:
    found = []
    for platform in platforms:
        codes = platform.get(hexcode, platform.get(hexcode.replace("-FE0F", ""), []))
        found += [codes] if isinstance(codes, str) else codes
    return tuple(dict.fromkeys(found))


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _read(path: Path) -> dict | list:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; delete its folder and let `fetch` run again") from None
