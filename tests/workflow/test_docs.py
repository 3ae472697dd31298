"""config/README.md is what the schemas say; links in the documents lead to files."""

import importlib.util
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / name / "README.md" for name in ("config", "results"))]
)


def script(path: str):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPO / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_all_keys_is_as_the_script_writes_it() -> None:
    page = (REPO / "config/README.md").read_text(encoding="utf-8")
    assert page == script("config/write_readme.py").render(), "run `python config/write_readme.py`"
    # Keys below lists, references and free names, and a definition that two keys share.
    for key in ("`rows[].settings.init.row`", "`teachers.<name>.lr`, `captioner.lr`", "`datasets.<name>.size`"):
        assert key in page


def test_the_page_of_what_a_change_makes_again_is_as_the_script_writes_it() -> None:
    page = (REPO / "docs/reruns.md").read_text(encoding="utf-8")
    assert page == script("docs/write_reruns.py").render(), "run `python docs/write_reruns.py`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    targets = [target for target in targets if "://" not in target]
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_no_figure_is_left_to_be_filled_in() -> None:
    for document in DOCUMENTS:
        assert "<!-- figures" not in document.read_text(), document


TABLE = """# A table

| row   | λ | IN-val (scale mini) | IN-val (paper) | Coarse (scale mini) | Latency (this CPU) |
|:------|:--|:--------------------|:---------------|:--------------------|:-------------------|
| plain | 0 | 24.4 [21.2, 27.6]   | 44.5           | 27.3                | 1.0                |

## What the columns measure here

| column | tasks |
|:-------|:------|
| IN-val | x     |

## Comparisons

| claim | rows | column | difference (scale mini) |
|:------|:-----|:-------|:------------------------|
| more  | a, b | IN-val | +1.0                    |
"""


def test_results_are_carried_over_into_their_places_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "mobileclip").mkdir()
    (tmp_path / "mobileclip/table2.md").write_text(TABLE, encoding="utf-8")
    rewrite = script("docs/write_results.py").rewrite
    document = """Before
<!-- results of table2: IN-val -->
old
<!-- end -->
<!-- results of table2 + comparisons -->
<!-- end -->
<!-- results of table9 -->
kept
<!-- end -->
after"""
    found = rewrite(document, tmp_path)
    assert (
        found
        == """Before
<!-- results of table2: IN-val -->

| row | IN-val (scale mini) | IN-val (paper) |
| --- | --- | --- |
| plain | 24.4 [21.2, 27.6] | 44.5 |

<!-- end -->
<!-- results of table2 + comparisons -->

| row | IN-val (scale mini) | IN-val (paper) | Coarse (scale mini) |
| --- | --- | --- | --- |
| plain | 24.4 [21.2, 27.6] | 44.5 | 27.3 |

| claim | column | difference (scale mini) |
| --- | --- | --- |
| more | IN-val | +1.0 |

<!-- end -->
<!-- results of table9 -->
kept
<!-- end -->
after"""
    )
    assert rewrite(found, tmp_path) == found and "table9.md was not made" in capsys.readouterr().err


def test_results_in_the_documents_are_of_experiments() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"<!-- results of ([\w/]+)", path.read_text())}
    files = {name if "/" in name else f"mobileclip/{name}" for name in named}
    assert "mobileclip/table2" in files and all((REPO / f"config/experiments/{name}.yaml").is_file() for name in files)
