"""What `snakemake list` prints: every table and figure by paper, what it shows, what is left to do, and for how long.

Left is what is not there; whether what is there is still what the code and the settings would make, a dry run says
(`snakemake -n`). Times are means of what earlier jobs of the same rule took in the same results folder.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean

from clipdr.artifacts import Artifact, inputs_of
from clipdr.chain import chunks_of
from clipdr.chunks import chunk_names
from clipdr.provenance import JOBS

# Stage -> what its last job makes in the artifact's folder.
MADE = {
    **{"pool": "shards", "tokenizer": "tokenizer", "zoo": "model", "subset": "chunks", "captions": "chunks/{}"},
    **{"sentences": "sentences", "embedded": "table", "corpora": "corpus"},
    **{"reinforced": "chunks/{}", "views": "arrays", "rows": "chunks/{}", "runs": "model", "eval": "scores/{}"},
    **{"costs": "costs.json", "storage": "storage.json", "work": "work.json"},
}


def left(wanted: Iterable[Artifact], results: Path, parts: int = 1) -> Counter:
    """Rule -> number of jobs that are left for some artifacts: what is not there, and what is missing to make it.

    `parts` is the number of jobs that share an evaluation.
    """
    found, seen, todo = Counter(), set(), list(wanted)
    while todo:
        one = todo.pop()
        if one.path in seen:
            continue
        seen.add(one.path)
        if (output := MADE.get(one.stage)) is None:  # a suite, of which there are only settings
            todo += inputs_of(one)
            continue
        names = chunk_names(parts if one.stage == "eval" else chunks_of(one)) if "{}" in output else [""]
        missing = sum(not (results / one.path / output.format(name)).exists() for name in names)
        if missing:
            found[JOBS[one.stage]] += missing
            todo += inputs_of(one)
    return found


def seconds(results: Path) -> dict[str, float]:
    """Rule -> mean seconds of its jobs so far."""
    found: dict[str, list[float]] = {}
    for path in sorted((results / "benchmarks").glob("*/**/*.tsv")):
        rule = path.relative_to(results / "benchmarks").parts[0]
        with path.open(encoding="utf-8", newline="") as stream:
            found.setdefault(rule, []).extend(float(line["s"]) for line in csv.DictReader(stream, delimiter="\t"))
    return {rule: mean(times) for rule, times in found.items() if times}


def cost(jobs: Mapping[str, int], mean_seconds: Mapping[str, float]) -> str:
    """`12 jobs left, 9 minutes`: of one job after the other."""
    if not jobs:
        return "done"
    number = f"{sum(jobs.values())} job{'s' if sum(jobs.values()) > 1 else ''} left"
    if unknown := sorted(jobs.keys() - mean_seconds.keys()):
        return f"{number}; no {unknown[0]} has run here yet"
    minutes = sum(count * mean_seconds[rule] for rule, count in jobs.items()) / 60
    return f"{number}, {minutes:.0f} minutes one by one" if minutes >= 1 else f"{number}, less than a minute"


def listing(planned: Mapping, costs: Mapping[str, str], misfits: Mapping[str, str], drawn: Mapping[str, str]) -> str:
    """Every target, paper by paper: its name, what it shows, its runs, and what it would cost now, or why not.

    Args:
        planned: `clipdr.config.Planned` by target.
        costs: target -> what `cost` says of it.
        misfits: target -> why the scale does not have it.
        drawn: of targets that are rules, <paper>-<rule> -> what they show; each has a cost, too.
    """
    lines, paper = [], None
    for key in sorted([*planned, *misfits, *drawn]):
        if key.partition("-")[0] != paper:
            paper = key.partition("-")[0]
            lines.append(paper)
        if key in misfits:
            there = f"not at this scale: {misfits[key]}"
        else:
            there = f"{drawn[key] if key in drawn else _what(planned[key])}: {costs[key]}"
        lines.append(f"  {key.partition('-')[2] if key in drawn else key:22} {there}")
    return "\n".join(lines)


def _what(one) -> str:
    runs = len({run.name for run in one.runs if run.artifact.stage == "runs"})
    return one.experiment["title"] + (f" ({runs} runs{', timed' if 'cost' in one.experiment else ''})" if runs else "")
