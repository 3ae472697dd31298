"""A table of storage: bytes of a sample as they were measured, and what they come to, beside the published terabytes.

Decided here:
* A size is that of the row without reinforcements that the paper publishes, and on top of it the measured bytes of the
  reinforcements with embeddings as wide as the paper's, times the samples: images of the paper's size are not here.
* A terabyte has 10**12 bytes, a kilobyte 1000.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.text import MISSING, booktabs, markdown_table, number
from clipdr.words import SIZE

KB, TB = 1e3, 1e12


def build(report: Mapping, results: Path, output: Path) -> None:
    """Write `output`.csv, .md and .tex.

    `report` is the settings.json of a table: `experiment`, `scale`, and the path of `storage` below `results`.

    Raises:
        UserError: the file of sizes is missing, is not what `clipdr.reinforce.storage` writes, or lacks a row.
    """
    measured = read_storage(Path(results) / report["storage"], [row["name"] for row in report["experiment"]["rows"]])
    lines = summarise(report["experiment"], measured)
    texts = {
        ".csv": pd.DataFrame(lines).to_csv(index=False, float_format="%.4f", lineterminator="\n"),
        ".md": markdown(report, measured, lines),
        ".tex": latex(report, lines),
    }
    for suffix, text in texts.items():
        with atomic_file(output.with_name(output.name + suffix)) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def read_storage(path: Path, rows: list[str]) -> dict:
    """`samples`, `plain` and, by row, `here` and `paper`. Raises UserError naming the file for what is not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sizes = {row["row"]: (row["here"], row["paper"]) for row in found["rows"]}
        measured = {"samples": found["samples"], "plain": found["plain"], "rows": sizes}
    except FileNotFoundError:
        raise UserError(f"{path}: missing; measure the storage first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as sizes ({error!r}); delete it and measure again") from None
    if missing := [row for row in rows if row not in sizes]:
        raise UserError(f"{path}: has no row {missing[0]!r}; delete it and measure again")
    return measured


def summarise(experiment: Mapping, measured: Mapping) -> list[dict]:
    """One line per row: what it stores, bytes of its reinforcements, terabytes ours and the paper's."""
    published = {row["name"]: row.get("published", {}).get(SIZE) for row in experiment["rows"]}
    lines = []
    for row in experiment["rows"]:
        stores, (here, paper) = row["stores"], measured["rows"][row["name"]]
        line = {"row": row["name"], "samples": stores["samples"]}
        line |= {key: stores.get(key) for key in ("views", "captions", "embeddings", "gzip")}
        added = "on" in stores  # to a dataset whose size the paper says
        line |= {"bytes here": here if added else None, "bytes": paper if added else None}
        base = published[stores["on"]] if added else None
        line["TB"] = base + paper * stores["samples"] / TB if base is not None else None
        lines.append(line | {"paper TB": published[row["name"]]})
    return lines


def markdown(report: Mapping, measured: Mapping, lines: list[dict]) -> str:
    """The table for a reader, and what was measured."""
    experiment, scale = report["experiment"], report["scale"]
    widths = " + ".join(map(str, experiment["storage"]["widths"]))
    sources = (f"Source: {experiment['source']}", experiment.get("note"))
    parts = [
        f"# {experiment['title']}",
        " ".join(f"{text.rstrip('.')}." for text in sources if text),
        markdown_table(_reader_lines(report, lines)),
        f"Measured on {measured['samples']} samples of scale `{scale['name']}` ({scale['title']}), in a tar file with "
        f"headers and padding; image, caption and details take {number(measured['plain'] / KB, 2)} kB more each. The "
        "store's embeddings are bfloat16: as float32 they compress better than such as were never rounded. At the "
        f"paper's widths, {widths} random numbers of unit length stand in the place of embeddings. Terabytes are those "
        "that the paper publishes without reinforcements, and these kilobytes on top.",
    ]
    return "\n\n".join(parts) + "\n"


def latex(report: Mapping, lines: list[dict]) -> str:
    """A booktabs tabular, to be put into a table environment."""
    experiment, readable = report["experiment"], _reader_lines(report, lines)
    comment = [
        f"% {experiment['title']} ({experiment['source']}), measured at scale {report['scale']['name']}.",
        "% Needs \\usepackage{booktabs}.",
    ]
    return booktabs(comment, "lrrll" + "r" * (len(readable[0]) - 5), readable)


def _reader_lines(report: Mapping, lines: list[dict]) -> list[dict[str, str]]:
    name = report["scale"]["name"]
    return [
        {
            "row": line["row"],
            "views": number(line["views"], 0),
            "captions": number(line["captions"], 0),
            "embeddings": line["embeddings"] or MISSING,
            "gzip": {True: "yes", False: "no", None: MISSING}[line["gzip"]],
            f"kB per sample (scale {name})": _kilobytes(line["bytes here"]),
            "kB per sample at the paper's widths": _kilobytes(line["bytes"]),
            f"{SIZE} (scale {name})": number(line["TB"], 2),
            f"{SIZE} (paper)": number(line["paper TB"]),
        }
        for line in lines
    ]


def _kilobytes(size: float | None) -> str:
    return number(None if size is None else size / KB, 2)
