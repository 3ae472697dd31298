"""config/README.md has the keys of the schemas, all of them and no others; links in the documents lead to files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[2]
SECTIONS = {
    "config": "`config.yaml`",
    "scale": "Scales",
    "experiment": "Experiments",
    "suite": "Suites",
    "models": "Models",
}
SCHEMAS = sorted(path.name.removesuffix(".schema.yaml") for path in (REPO / "workflow/schemas").glob("*.schema.yaml"))
DOCUMENTS = sorted(
    [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), REPO / "config/README.md", REPO / "results/README.md"]
)


def paths(schema: dict, definitions: dict, path: str = "") -> Iterator[str]:
    """Every key that a schema knows: `rows[].name`, with `<name>` for a key that the user chooses."""
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    if path:
        yield path
    if "items" in schema and any(key in schema["items"] for key in ("properties", "$ref")):
        inner = {**definitions.get(schema["items"].get("$ref", "").rpartition("/")[2], {}), **schema["items"]}
        schema, path = inner, f"{path}[]"
    for key, value in schema.get("properties", {}).items():
        yield from paths(value, definitions, f"{path}.{key}".lstrip("."))
    for value in schema.get("patternProperties", {}).values():
        yield from paths(value, definitions, f"{path}.<name>".lstrip("."))


def documented(kind: str) -> list[str]:
    """The keys in the first column of the tables of a section of config/README.md."""
    text = (REPO / "config/README.md").read_text()
    section = next(part for part in text.split("\n## ")[1:] if part.startswith(SECTIONS[kind]))
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_is_documented_and_every_documented_key_exists(kind: str) -> None:
    schema = yaml.safe_load((REPO / f"workflow/schemas/{kind}.schema.yaml").read_text())
    known = list(paths(schema, schema.get("$defs", {})))
    keys = documented(kind)
    assert len(known) == len(set(known)) > 1
    assert sorted(set(known) - set(keys)) == []
    assert sorted(set(keys) - set(known)) == []
    assert len(keys) == len(set(keys))


def test_keys_are_found_below_lists_references_and_free_names() -> None:
    member = {"properties": {"lr": {}}}
    schema = {
        "properties": {
            "a": {"patternProperties": {"^.+$": {"$ref": "#/$defs/member"}}},
            "b": {"items": member},
            "c": {},
        }
    }
    assert list(paths(schema, {"member": member})) == ["a", "a.<name>", "a.<name>.lr", "b", "b[].lr", "c"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    targets = [target for target in targets if "://" not in target]
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_no_figure_is_left_to_be_filled_in() -> None:
    for document in DOCUMENTS:
        assert "<!-- figures" not in document.read_text(), document
