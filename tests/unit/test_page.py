"""The report's page: what is there, what is not and why, and that nothing on it comes from elsewhere."""

import base64
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from one_table import page_settings, results_of_one_table
from refusals import refused

from clipdr.report import page
from clipdr.text import markdown_table, markdown_tables


@pytest.fixture()
def results(tmp_path):
    return results_of_one_table(tmp_path)


class Page(HTMLParser):
    """Tags with their attributes, and texts by the tag that they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture()
def built(results):
    page.build(page_settings(results), results, results / "report.html")
    return Page((results / "report.html").read_text())


def test_the_scoreboard_has_each_claim_with_its_verdict(built):
    text = " ".join(" ".join(built.texts).split())
    assert "1 reproduced" in text and "1 contradicted" in text and "1 alike" in text
    assert "NOT THE PAPER'S SETTING" in text and "at scale tiny" in text
    assert "1 jobs, 0.50 hours" in text and "0.25 core hours" in text and "c0ffeec0ffee" in text


def test_texts_inject_nothing(built):
    assert len(built.of("script")) == 1, "the page's own"
    assert not [a for a in built.of("a") if a["href"].startswith("javascript")]
    assert " ".join(built.texts).count("<script>alert(1)</script>") >= 6
    assert not [attributes for _, attributes in built.tags if any(name.startswith("on") for name in attributes)]


def test_nothing_comes_from_elsewhere_and_every_link_leads_somewhere(built, results):
    places = [attributes[key] for _, attributes in built.tags for key in ("src", "href") if key in attributes]
    assert {place.split(":")[0] for place in places if place[0] != "#"} == {"data"}
    assert not re.findall(r"url\(|@import|https?://", (results / "report.html").read_text())
    ids = {attributes["id"] for _, attributes in built.tags if "id" in attributes}
    assert {place[1:] for place in places if place[0] == "#"} <= ids and "mobileclip-two-1" in ids


def test_files_are_downloaded_as_they_are(built, results):
    found = {a["download"]: a["href"] for a in built.of("a") if "download" in a}
    assert found.keys() == {"two.csv", "two.tex", "two.svg", "chain.svg"}
    tables = results / "tiny/tables/mobileclip"
    assert unquote(found["two.csv"].partition(",")[2]) == (tables / "two.csv").read_text()
    svg = base64.b64decode(found["two.svg"].partition(",")[2])
    assert svg == (results / "tiny/figures/mobileclip/two.svg").read_bytes()
    img, chain = built.of("img")
    assert chain["src"] == found["chain.svg"] and "snakemake nowhere" in " ".join(built.texts)
    assert img["alt"].startswith("Two rows") and img["src"] == found["two.svg"]


def test_a_cell_leads_to_all_that_its_row_rests_on(built):
    links = [a["href"] for a in built.of("a") if a["href"].startswith("#mobileclip-two-")]
    assert links == ["#mobileclip-two-0", "#mobileclip-two-1"], "no row without scores of ours"
    assert "results/eval/better1/suite/scores/0-of-1" in " ".join(built.texts)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"settings": "other"}, "made with other settings. Make it again: snakemake two"),
        ({"name": "gone"}, "snakemake two"),
    ],
)
def test_what_is_not_there_has_its_command_and_no_number(change, says, results):
    page.build(page_settings(results, **change), results, results / "report.html")
    found = Page((results / "report.html").read_text())
    text = " ".join(" ".join(found.texts).split())
    assert says in text and "snakemake clipkd-losses" in text and "This scale does not have it: no data" in text
    assert "No table with claims was made." in text and len(found.of("img")) == 1 and "30.0" not in text


def test_a_table_that_lost_a_file_is_refused(results):
    (results / "tiny/tables/mobileclip/two.tex").unlink()
    assert "two.tex cannot be read" in refused(page.build, page_settings(results), results, results / "report.html")


def test_tables_are_read_back_as_they_were_written():
    lines = [{"a": "x | y", "b": "1"}, {"a": "", "b": "–"}]
    assert markdown_tables(f"# T\n\n{markdown_table(lines)}\n\ntext\n\n{markdown_table(lines[:1])}") == [
        lines,
        lines[:1],
    ]
