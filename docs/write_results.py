"""Carry what the miniature measured over into the documents: `python docs/write_results.py`, after the runs.

A document names a table between two comments, `<!-- results of table2: IN-val, Flickr30k -->` and `<!-- end -->`; what
stands between them is written from `results/mini/tables/mobileclip/table2.md`. `clipkd/losses` is a table of another
paper. Columns that do not follow from a scale are left out, and so are others than those named, if any are, and rows of
which nothing was reproduced. `+ comparisons` after them adds the claims, and what else the table says of them. Tables
that were not made are left as they stand.

docs/results.md has all claims of all tables that were made, and with which commits.
"""

import re
import sys
from collections import Counter
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "src"))
from clipdr.errors import UserError  # noqa: E402
from clipdr.provenance import read  # noqa: E402
from clipdr.report.page import PAPERS, blocks, claims  # noqa: E402
from clipdr.text import markdown_tables  # noqa: E402

TABLES = REPO / "results/mini/tables"
BLOCK = re.compile(r"(<!-- results of ([\w/]+)(?:: ([^+]*?))?( \+ comparisons)? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
DROPPED = {"rows"}  # columns of claims that repeat what the claim says
Table = list[dict[str, str]]


def markdown(table: Table) -> str:
    lines = [list(table[0]), ["---"] * len(table[0]), *(list(line.values()) for line in table)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def chosen(table: Table, wanted: list[str], scale: str) -> Table:
    """The rows of which something was reproduced, in the order of the table; of the wanted columns, if any are."""

    def stays(key: str) -> bool:
        name = key.rpartition(" (")[0]
        return key == "row" or (
            name != "" and (name in wanted or not wanted) and key.endswith((f"(scale {scale})", "(paper)"))
        )

    reproduced = [line for line in table if any(v != "–" for k, v in line.items() if k.endswith(f"(scale {scale})"))]
    return [{key: value for key, value in line.items() if stays(key)} for line in reproduced]


def written(text: str, wanted: list[str], comparisons: bool, scale: str) -> str:
    """What stands in a document for the table whose .md is `text`."""
    first, *others = markdown_tables(text)
    parts = [chosen(first, wanted, scale)]
    if comparisons:
        claims = [table for table in others if not {"tasks", "networks", "network"} & table[0].keys()]
        parts += [[{k: v for k, v in line.items() if k not in DROPPED} for line in table] for table in claims]
    return "\n".join(markdown(part) for part in parts)


def rewrite(document: str, tables: Path, scale: str = "mini") -> str:
    """The document with each of its blocks written anew."""

    def block(match: re.Match) -> str:
        start, name, wanted, comparisons, old, end = match.groups()
        path = tables / f"{name if '/' in name else f'mobileclip/{name}'}.md"
        if not path.is_file():
            print(f"left as it stands: {path} was not made", file=sys.stderr)
            return match[0]
        columns = [column.strip() for column in (wanted or "").split(",") if column.strip()]
        return f"{start}\n{written(path.read_text(encoding='utf-8'), columns, bool(comparisons), scale)}\n{end}"

    return BLOCK.sub(block, document)


RESULTS = """# What was reproduced in miniature

Written by `python docs/write_results.py`: every claim of every table of scale `mini` that was made, with the verdict by
its interval ([evaluation](evaluation.md)). Of {claims} claims: {verdicts}. Made with {commits}.

The same, with all tables and pictures, is `results/report.html` after `make run`.
"""


def results(tables: Path) -> str:
    """docs/results.md, of the tables below a folder of a scale."""
    parts, verdicts, commits = [], Counter(), set()
    for paper, title in PAPERS.items():
        lines = []
        for path in sorted((tables / paper).glob("*.md")):
            found = list(claims(list(blocks(path.read_text(encoding="utf-8")))))
            verdicts.update(claim["kind"] for claim in found)
            shown = [{key: claim[key] for key in ("claim", "column", "here", "paper", "verdict")} for claim in found]
            lines += [{"table": path.stem, **claim} for claim in shown]
            log = tables.parents[1] / "logs/table" / tables.parent.name / paper / f"{path.stem}.log"
            commits.add(f"commit {read(log)['commit'][:12]}")
        if lines:
            parts += [f"## {title}", markdown(lines).strip()]
    if not parts:
        raise UserError(f"{tables} has no table with claims; make some first")
    said = ", ".join(f"{number} {kind}" for kind, number in sorted(verdicts.items()))
    start = RESULTS.format(claims=sum(verdicts.values()), verdicts=said, commits=", ".join(sorted(commits)))
    return "\n\n".join([start.strip(), *parts]) + "\n"


if __name__ == "__main__":
    names = ("README", *(f"docs/{page}" for page in ("miniature", "clipkd", "dimefm", "clipup")))
    for path in (REPO / f"{name}.md" for name in names):
        path.write_text(rewrite(path.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
        print(path.relative_to(REPO))
    try:
        (REPO / "docs/results.md").write_text(results(TABLES), encoding="utf-8")
        print("docs/results.md")
    except UserError as error:
        sys.exit(f"error: {error}")
