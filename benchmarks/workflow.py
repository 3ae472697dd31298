"""What Snakemake itself costs: seconds to read the workflow and to find what has to run, as a user waits for them.

    python benchmarks/workflow.py                    # about two minutes; in a copy, nothing is made
    python benchmarks/workflow.py --finished FOLDER  # also with nothing to do, in a clone whose chain has run

Each call is a dry run in its own process, three times; the middle one counts. The grid is an experiment of 500 values
of λ with four seeds, 2000 runs, and a suite of 42 tasks, which one job evaluates for each run.

Exits with 1 if a limit is not kept, or if reading the workflow imports torch.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parents[1]
# Dry run -> seconds that it may take on two cores.
LIMITS = {
    "all experiments at mini": 5,
    "all at paper12m": 20,
    "all at paper1b": 20,
    "2000 runs on 42 datasets": 20,
    "nothing to do": 5,
}
ROWS, SEEDS, TASKS = 500, 4, 42


def copied(folder: Path) -> Path:
    """What a clone of the working tree would hold, with a grid."""
    sys.path.insert(0, str(REPO / "tests"))
    from clones import copy_of_the_repository

    from clipdr.schema import load_yaml

    clone = copy_of_the_repository(folder / "clone")
    task = {"title": "T", "kind": "classification", "main_metric": "acc1"}
    tasks = [{**task, "key": key} for key in ("unseen-vendor", "black-and-white", "monochrome")]
    tasks += [{**task, "key": f"task-{n}", "title": f"T{n}"} for n in range(TASKS - len(tasks))]
    # The columns of the scale below it are none here.
    columns = dict.fromkeys(load_yaml(REPO / "config/scales/ci.yaml")["evaluation"]["columns"], [])
    columns["IN-val"] = [task["key"] for task in tasks]
    rows = [
        {"name": f"λ = {n}", "settings": {"objective": {"lambda": (n + 1) / ROWS, "teachers": "ensemble"}}}
        for n in range(ROWS)
    ]
    experiment = {
        "title": "Grid",
        "source": "none",
        "seeds": list(range(SEEDS)),
        "columns": ["IN-val"],
        "settings": {
            "model": "ViT-B/16:Base",
            "data": {"dataset": "DataComp-12M", "captions": ["real", "syn"], "augmentation": "strong"},
            "objective": {"name": "reinforced"},
        },
        "rows": rows,
    }
    scale = {"base": "ci", "seeds": SEEDS, "evaluation": {"suite": "grid", "columns": columns}}
    for name, content in (
        ("suites/grid", {"tasks": tasks}),
        ("scales/grid", scale),
        ("experiments/mobileclip/grid", experiment),
    ):
        (clone / f"config/{name}.yaml").write_text(json.dumps(content))
    return clone


def dry_run(folder: Path, *args: str) -> tuple[float, int]:
    """Seconds in the middle of three, and the number of jobs."""
    command, seconds = [sys.executable, "-m", "snakemake", "-n", "-q", "rules", *args], []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        seconds.append(time.monotonic() - start)
        if done.returncode:
            sys.exit(f"{' '.join(args)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    total = [line.split()[1] for line in (done.stdout + done.stderr).splitlines() if line.startswith("total")]
    return statistics.median(seconds), int(total[0]) if total else 0


def imports_torch(folder: Path) -> bool:
    """Whether a dry run imports it, by Python's own log of imports."""
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n", "-q", "all"]
    log = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr
    return any(line.rpartition("|")[2].strip() == "torch" for line in log.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=Path, help="clone in which `snakemake all` has run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(Path(scratch))
        experiments = sorted(path.stem for path in (REPO / "config/experiments/mobileclip").glob("*.yaml"))
        measured = {
            "all experiments at mini": dry_run(folder, "--", *experiments),
            "all at paper12m": dry_run(folder, "--config", "scale=paper12m", "--", "all"),
            "all at paper1b": dry_run(folder, "--config", "scale=paper1b", "--", "all"),
            "2000 runs on 42 datasets": dry_run(folder, "--config", "scale=grid", "--", "grid"),
        }
        if args.finished:
            measured["nothing to do"] = dry_run(args.finished)
        torch = imports_torch(folder)
    print("| dry run | jobs | s | limit |\n|---|---|---|---|")
    for name, (seconds, jobs) in measured.items():
        print(f"| {name} | {jobs} | {seconds:.1f} | {LIMITS[name]} |")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"peak memory {memory:.0f} MB; reading the workflow imports {'torch' if torch else 'no torch'}")
    sys.exit(torch or any(seconds > LIMITS[name] for name, (seconds, _) in measured.items()))


if __name__ == "__main__":
    main()
