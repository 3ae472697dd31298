"""The report: all tables of a scale on one page that needs no network, and the command for each that is not there.

Decided here:
* A table is shown if it was made with the settings that it would have today; of another one the page says that it was
  not. With which code it was made is said beside it: its commit, and the jobs behind each row.
* The scoreboard has the claims of the tables that are shown, as those judge them.
* Texts of experiments and data are escaped. Pictures, tables and pictures for download are part of the page.
"""

import base64
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.provenance import read
from clipdr.report.explain import jobs_behind
from clipdr.text import MISSING, markdown_tables

CLAIMS = ("Comparisons", "Comparisons of networks", "Rank correlation")  # headings of tables that judge claims
JUDGED = ("verdict", "direction")
SVG = "image/svg+xml"
SHOWN, STALE, ABSENT, UNDEFINED = "shown", "other settings", "missing", "undefined"
PAPERS = {"mobileclip": "MobileCLIP", "clipkd": "CLIP-KD", "dimefm": "DIME-FM", "clipup": "CLIP-UP"}


def build(settings: Mapping, results: Path, output: Path) -> None:
    """Write the page.

    Args:
        settings: `scale` with its `name` and `title`; `pictures` of no table, each with its SVG `file` below `results`,
            `title` and `command`; `experiments`, each with `paper`, `name`, `title`, `command`, and
            `settings`, the sha256 of those that its table would have today, or `undefined`, why the scale lacks it.
        results: folder of all results.
        output: HTML file.

    Raises:
        UserError: a table that is there without what belongs to it.
    """
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    entries = [_entry(one, settings["scale"]["name"], results) for one in settings["experiments"]]
    papers, there = _by_paper(entries), [one for one in settings["pictures"] if (results / one["file"]).is_file()]
    claims = [claim for of_paper in papers.values() for entry in of_paper for claim in entry["claims"]]
    text = environment.get_template("page.html").render(
        scale=settings["scale"],
        pictures=[
            {**one, "name": Path(one["file"]).name, "address": _data(results / one["file"], SVG)} for one in there
        ],
        absent=[one for one in settings["pictures"] if one not in there],
        papers={PAPERS.get(paper, paper): of_paper for paper, of_paper in papers.items()},
        claims=claims,
        counted=Counter(claim["kind"] for claim in claims),
        spent=spent(results),
        made=sorted({entry["made"] for entry in entries if entry["made"]}),
    )
    with atomic_file(output) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def _entry(one: Mapping, scale: str, results: Path) -> dict:
    """What the page says of an experiment."""
    place = f"{one['paper']}/{one['name']}"
    path = results / scale / "tables" / f"{place}.md"
    entry = {**one, "id": place.replace("/", "-"), "state": _state(one, path, results / scale / "report" / place)}
    entry |= {"main": None, "blocks": [], "claims": [], "pictures": {}, "downloads": {}, "rows": {}, "made": None}
    if entry["state"] != SHOWN:
        return entry
    entry["blocks"] = list(blocks(path.read_text(encoding="utf-8")))
    entry["main"] = next(number for number, (kind, _) in enumerate(entry["blocks"]) if kind == "table")
    entry["claims"] = [{**claim, "experiment": entry["id"]} for claim in claims(entry["blocks"])]
    pictures = {
        label: results / scale / "figures" / f"{place}{ending}.svg"
        for label, ending in (("picture", ""), ("losses", "-loss"))
    }
    pictures = {label: file for label, file in pictures.items() if file.is_file()}
    entry["pictures"] = {label: _data(file, SVG) for label, file in pictures.items()}
    files = {
        "table as .csv": (path.with_suffix(".csv"), "text/csv"),
        "table as .tex": (path.with_suffix(".tex"), "text/x-tex"),
    }
    files |= {f"{label} as .svg": (file, SVG) for label, file in pictures.items()}
    entry["downloads"] = {label: (file.name, _data(file, kind)) for label, (file, kind) in files.items()}
    entry["rows"] = jobs_behind(results / scale / "report" / place / "settings.json", results)
    line = read(results / "logs/table" / scale / f"{place}.log")
    changed = " with changes" if line["changed"] else ""
    entry["made"] = f"commit {line['commit'][:12]}{changed}, lock {line['lock']}, {line['machine']}"
    return entry


def _state(one: Mapping, table: Path, report: Path) -> str:
    if "undefined" in one:
        return UNDEFINED
    if not table.is_file():
        return ABSENT
    told = report / "settings.json"
    same = told.is_file() and hashlib.sha256(told.read_bytes().rstrip(b"\n")).hexdigest() == one["settings"]
    return SHOWN if same else STALE


def blocks(markdown: str) -> Iterator[tuple[str, object]]:
    """A table's Markdown as ("heading", text), ("table", lines) and ("text", HTML), without its title."""
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark", {"html": False}).render
    for block in markdown.strip().split("\n\n"):
        if block.startswith("# "):
            continue
        if block.startswith("## "):
            yield "heading", block.removeprefix("## ")
        elif block.startswith("|"):
            (lines,) = markdown_tables(block)
            yield "table", lines
        else:
            yield "text", render(block)


def claims(of: list[tuple[str, object]]) -> Iterator[dict]:
    """What the tables below the headings `CLAIMS` judge: claim, column, here, paper, verdict and its kind."""
    heading = None
    for kind, content in of:
        if kind == "heading":
            heading = content
        elif kind == "table" and heading in CLAIMS:
            yield from (_claim(line) for line in content)


def _claim(line: Mapping[str, str]) -> dict:
    here = next(value for key, value in line.items() if re.match(r"(difference|times) \((scale|here)|rank", key))
    paper = next((value for key, value in line.items() if key.endswith("(paper)")), MISSING)
    verdict = next(line[key] for key in JUDGED if key in line)
    what = line.get("claim") or f"rank correlation of {line['columns']}"
    kind = (
        "alike" if verdict.startswith("alike") else "holds" if verdict.startswith("holds") else verdict.split(" (")[0]
    )
    return {
        "claim": what,
        "column": line.get("column", ""),
        "here": here,
        "paper": paper,
        "verdict": verdict,
        "kind": kind,
    }


def spent(results: Path) -> list[dict[str, str]]:
    """Jobs, hours and core hours of all that lies in the results, by rule, the longest first, and of all together."""
    lines = []
    for path in sorted((results / "benchmarks").glob("*/**/*.tsv")):
        rule = path.relative_to(results / "benchmarks").parts[0]
        with path.open(encoding="utf-8", newline="") as stream:
            lines += [{**line, "rule": rule} for line in csv.DictReader(stream, delimiter="\t")]
    found = {rule: [line for line in lines if line["rule"] == rule] for rule in {line["rule"] for line in lines}}
    hours = {rule: (len(of), _hours(of, "s"), _hours(of, "cpu_time")) for rule, of in found.items()}
    rows = sorted(hours.items(), key=lambda item: (-item[1][1], item[0]))
    rows.append(("all", tuple(map(sum, zip(*hours.values(), strict=True))) or (0, 0.0, 0.0)))
    names = ("jobs", "hours", "core hours")
    return [
        {"rule": rule} | dict(zip(names, (str(jobs), f"{wall:.2f}", f"{core:.2f}"), strict=True))
        for rule, (jobs, wall, core) in rows
    ]


def _hours(lines: list[dict], column: str) -> float:
    """Of a column of seconds, in which Snakemake writes a dash for a job that was too short."""
    return sum(float(line[column]) for line in lines if line[column][:1].isdigit()) / 3600


def _by_paper(entries: list[dict]) -> dict[str, list[dict]]:
    """In the order of `PAPERS`, others behind them."""
    found: dict[str, list[dict]] = {paper: [] for paper in PAPERS}
    for entry in entries:
        found.setdefault(entry["paper"], []).append(entry)
    return {paper: of_paper for paper, of_paper in found.items() if of_paper}


def _data(path: Path, kind: str) -> str:
    """A file as the address of itself."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make the table again") from None
    if kind.startswith("text/"):
        return f"data:{kind};charset=utf-8,{quote(content)}"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
