"""Carry what the miniature measured over into the documents: `python docs/write_results.py`, after the runs.

A document names a table between two comments, `<!-- results of table2: IN-val, Flickr30k -->` and `<!-- end -->`; what
stands between them is written from `results/mini/tables/mobileclip/table2.md`. `clipkd/losses` is a table of another
paper. Columns that do not follow from a scale are left out, and so are others than those named, if any are, and rows of
which nothing was reproduced. `+ comparisons` after them adds the claims, and what else the table says of them. Tables
that were not made are left as they stand.
"""

import re
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "src"))
from clipdr.text import markdown_tables  # noqa: E402

TABLES = REPO / "results/mini/tables"
BLOCK = re.compile(r"(<!-- results of ([\w/]+)(?:: ([^+]*?))?( \+ comparisons)? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
DROPPED = {"rows"}  # columns of claims that repeat what the claim says
Table = list[dict[str, str]]


def markdown(table: Table) -> str:
    lines = [list(table[0]), ["---"] * len(table[0]), *(list(line.values()) for line in table)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def chosen(table: Table, wanted: list[str]) -> Table:
    """The rows of which something was reproduced, in the order of the table; of the wanted columns, if any are."""

    def stays(key: str) -> bool:
        name = key.rpartition(" (")[0]
        return key == "row" or (
            name != "" and (name in wanted or not wanted) and key.endswith(("(scale mini)", "(paper)"))
        )

    reproduced = [line for line in table if any(v != "–" for k, v in line.items() if k.endswith("(scale mini)"))]
    return [{key: value for key, value in line.items() if stays(key)} for line in reproduced]


def written(text: str, wanted: list[str], comparisons: bool) -> str:
    """What stands in a document for the table whose .md is `text`."""
    first, *others = markdown_tables(text)
    parts = [chosen(first, wanted)]
    if comparisons:
        claims = [table for table in others if not {"tasks", "networks", "network"} & table[0].keys()]
        parts += [[{k: v for k, v in line.items() if k not in DROPPED} for line in table] for table in claims]
    return "\n".join(markdown(part) for part in parts)


def rewrite(document: str, tables: Path) -> str:
    """The document with each of its blocks written anew."""

    def block(match: re.Match) -> str:
        start, name, wanted, comparisons, old, end = match.groups()
        path = tables / f"{name if '/' in name else f'mobileclip/{name}'}.md"
        if not path.is_file():
            print(f"left as it stands: {path} was not made", file=sys.stderr)
            return match[0]
        columns = [column.strip() for column in (wanted or "").split(",") if column.strip()]
        return f"{start}\n{written(path.read_text(encoding='utf-8'), columns, bool(comparisons))}\n{end}"

    return BLOCK.sub(block, document)


if __name__ == "__main__":
    names = ("README", *(f"docs/{page}" for page in ("miniature", "clipkd", "dimefm", "clipup")))
    for path in (REPO / f"{name}.md" for name in names):
        path.write_text(rewrite(path.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
        print(path.relative_to(REPO))
