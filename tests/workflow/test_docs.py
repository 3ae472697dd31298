"""config/README.md is what the schemas say; links in the documents lead to files."""

import importlib.util
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / name / "README.md" for name in ("config", "results"))]
)


def test_the_page_of_all_keys_is_as_the_script_writes_it() -> None:
    spec = importlib.util.spec_from_file_location("write_readme", REPO / "config/write_readme.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (REPO / "config/README.md").read_text(encoding="utf-8")
    assert page == script.render(), "run `python config/write_readme.py`"
    # Keys below lists, references and free names, and a definition that two keys share.
    for key in ("`rows[].settings.init.row`", "`teachers.<name>.lr`, `captioner.lr`", "`datasets.<name>.size`"):
        assert key in page


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    targets = [target for target in targets if "://" not in target]
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_no_figure_is_left_to_be_filled_in() -> None:
    for document in DOCUMENTS:
        assert "<!-- figures" not in document.read_text(), document
