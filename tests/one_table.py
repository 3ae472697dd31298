"""A folder of results with one table in it, whose texts try to inject markup; and what a page of it is told."""

import hashlib
import json
from pathlib import Path

from scored import record, write_scores

from clipdr.report import figure, table

JOB = {
    "commit": "c0ffee" * 7,
    "changed": False,
    "lock": "abc",
    "machine": "Abacus, 2 cores",
    "code": "1",
    "python": "3.11",
}
JOB |= {"started": "2026-01-01T00:00:00+00:00"}
EVIL = "<script>alert(1)</script> & [link](javascript:alert(2))"
EXPERIMENT = {
    "title": f"Two rows {EVIL}",
    "source": "arXiv 0000.00000, Table 9",
    "seeds": [0, 1],
    "columns": ["IN-val"],
    "rows": [
        {"name": f"plain | {EVIL}", "settings": {"model": "a"}, "published": {"IN-val": 10.0}},
        {"name": "better", "settings": {"model": "b"}, "published": {"IN-val": 12.0}, "note": EVIL},
        {"name": "published alone", "published": {"IN-val": 50.0}},
    ],
    "comparisons": [
        {"better": "better", "than": f"plain | {EVIL}", "column": "IN-val", "claim": f"b beats a {EVIL}"},
        {"better": f"plain | {EVIL}", "than": "better", "column": "IN-val", "claim": "a beats b"},
        {"better": "better", "than": f"plain | {EVIL}", "column": "IN-val", "claim": "alike", "similar": True},
    ],
}


def log(path: Path, *command: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"provenance: {json.dumps({**JOB, 'command': list(command)})}\n")


def results_of_one_table(results: Path) -> Path:
    """Make a folder of results with one table, as its rule makes it."""
    runs = []
    for row, accuracy in ((EXPERIMENT["rows"][0]["name"], 0.1), ("better", 0.3)):
        for seed in (0, 1):
            run = f"{'plain' if '|' in row else row}{seed}"
            scores = f"eval/{run}/suite/scores/0-of-1"
            write_scores(results / scores, [record("val", accuracy + 0.02 * seed, 100, 10)])
            made = ("python", "-m", "clipdr.evaluate", "--output", f"results/{scores}")
            log(results / f"logs/evaluate/{run}/suite.log", *made)
            runs.append({"row": row, "seed": seed, "scores": [scores]})
    report = {"experiment": EXPERIMENT, "runs": runs}
    report["scale"] = {"name": "tiny", "title": "Tiny", "columns": {"IN-val": ["val"]}}
    told = results / "tiny/report/mobileclip/two/settings.json"
    told.parent.mkdir(parents=True)
    told.write_text(json.dumps(report) + "\n")
    for stage, output in ((table.build, "tables/mobileclip/two"), (figure.draw, "figures/mobileclip/two.png")):
        (results / "tiny" / output).parent.mkdir(parents=True)
        stage(report, results, results / "tiny" / output)
    (results / "tiny/figures/chain.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    log(results / "logs/table/tiny/mobileclip/two.log", "python")
    (results / "benchmarks/table").mkdir(parents=True)
    (results / "benchmarks/table/two.tsv").write_text("s\tcpu_time\n1800\t900\n")
    return results


def page_settings(results: Path, **changes) -> dict:
    """What the page is told: that table, with `changes`, one that was not made, and one that the scale lacks."""
    told = (results / "tiny/report/mobileclip/two/settings.json").read_text().rstrip("\n")
    there = {"paper": "mobileclip", "name": "two", "title": EXPERIMENT["title"], "command": "snakemake two"}
    there |= {"settings": hashlib.sha256(told.encode()).hexdigest()} | changes
    gone = {
        "paper": "clipkd",
        "name": "losses",
        "title": "Losses",
        "command": "snakemake clipkd-losses",
        "settings": "0",
    }
    never = {"paper": "other", "name": "x", "title": "X", "command": "snakemake x", "undefined": f"no data {EVIL}"}
    pictures = [
        {"file": f"tiny/figures/{name}.svg", "title": f"{name} {EVIL}", "command": f"snakemake {name}"}
        for name in ("chain", "nowhere")
    ]
    scale = {"name": "tiny", "title": f"Tiny {EVIL}"}
    return {"scale": scale, "pictures": pictures, "experiments": [gone, there, never]}
