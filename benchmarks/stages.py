"""Where the time of a finished chain went: seconds and memory per rule, from the benchmark files that Snakemake wrote.

python benchmarks/stages.py results/benchmarks
"""

import sys
from pathlib import Path

import pandas as pd


def summarise(folder: Path) -> pd.DataFrame:
    """One line per rule: jobs, seconds of all jobs, share of all, mean seconds, CPU seconds, largest RSS in MB."""
    files = sorted(folder.glob("*/**/*.tsv"))
    if not files:
        sys.exit(f"error: {folder} holds no benchmark files; run `snakemake --cores all` first")
    jobs = pd.concat([pd.read_csv(f, sep="\t").assign(rule=f.relative_to(folder).parts[0]) for f in files])
    by = jobs.groupby("rule")
    table = by.agg(jobs=("s", "size"), seconds=("s", "sum"), mean=("s", "mean"), cpu=("cpu_time", "sum"))
    table["rss_mb"] = by["max_rss"].max()
    table.insert(2, "share", table["seconds"] / table["seconds"].sum())
    return table.sort_values("seconds", ascending=False)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    table = summarise(Path(sys.argv[1]))
    print(table.assign(jobs=table["jobs"].map(str)).to_markdown(floatfmt=("", "", ".0f", ".2f", ".1f", ".0f", ".0f")))
