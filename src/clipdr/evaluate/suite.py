"""Evaluate one model on a whole suite of tasks, in one process.

The model is loaded once, and every text and every image is encoded once, however many tasks share it: for small
suites the start-up of a process is most of the cost, and ImageNet, -V2 and -Sketch share all their 80,000 prompts.
Nothing here is random but the bootstrap, whose seed is fixed.

A task's outcomes are kept as they are finished, so that an evaluation that was killed goes on, and so that intervals
and differences of rows can be computed without the model. A text or image that a finished task shares with one that is
left is encoded in another batch then, which may change its last bit.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipdr.errors import UserError, listed
from clipdr.evaluate.encoder import Encoder
from clipdr.evaluate.intervals import drawn, interval
from clipdr.evaluate.kinds import kind_of, modules_of
from clipdr.evaluate.outcomes import DRAWS, load, outcomes_file, save
from clipdr.evaluate.records import RECORDS
from clipdr.evaluate.tasks import task_folder
from clipdr.files import atomic_file, resumable_dir, sha256, sha256_file, stamps
from clipdr.fingerprint import own
from clipdr.models.folder import weights_file
from clipdr.progress import log


def evaluate_suite(
    model_dirs: Sequence[Path],
    tasks_dir: Path,
    suite: dict,
    output: Path,
    threads: int = 1,
    devices: Sequence[str] = ("cpu",),
    teachers: Sequence[Path] = (),
) -> list[dict]:
    """Score one model, or several together (MobileCLIP, Appendix D), on all tasks of a suite.

    A record follows DataComp's schema: `key`, `dataset` (the title), and `metrics`, fractions in [0, 1] or cosines,
    None where one is not defined, `main_metric` repeating the marked one. Beside them stand the task's `kind`, the name
    of its `main_metric`, that one's `interval` of 95 %, `chance`, the metrics of guesses, and numbers of images and the
    like.

    Args:
        model_dirs: model folders.
        tasks_dir: with the `wds_*` folders.
        suite: `tasks`, entries of config/suites; `batch_size`, the images or texts of a forward pass, which changes no
            number; `precision`, float32 if left out; and `teachers`, names of those that tasks compare with.
        output: folder that receives `records.jsonl`, a record per task in the suite's order, each task's outcomes, and
            `draws.npz`, the main metrics for test images drawn anew.
        threads: that decode images.
        devices: that share the images.
        teachers: their model folders, in the order of their names.

    Raises:
        UserError: a broken task folder or model folder, or embeddings that are zero or not finite.
    """
    entries = suite["tasks"]
    tasks = {entry["key"]: kind_of(entry["kind"]).open_task(task_folder(tasks_dir, entry), entry) for entry in entries}
    of_name = _teachers(suite, teachers)
    with resumable_dir(output, _token([*model_dirs, *teachers], tasks_dir, suite)) as folder:
        left = [entry for entry in entries if not (folder / outcomes_file(entry["key"])).is_file()]
        if left:
            precision = suite.get("precision", "float32")
            encoder = Encoder(model_dirs, suite["batch_size"], threads, devices, precision, of_name)
        for entry in left:
            start, skipped = time.monotonic(), encoder.skipped
            outcomes = kind_of(entry["kind"]).score(tasks[entry["key"]], encoder)
            outcomes["skipped"] = np.array(encoder.skipped - skipped)
            save(outcomes, folder / outcomes_file(entry["key"]))
            log.info("%s: %.1f s", entry["key"], time.monotonic() - start)
        records, draws = [], {}
        for entry in entries:
            outcomes = load(folder / outcomes_file(entry["key"]))
            draws[entry["key"]] = drawn(kind_of(entry["kind"]), outcomes, entry["main_metric"], entry["key"])
            records.append(record(entry, outcomes, draws[entry["key"]]))
        save(draws, folder / DRAWS)
        with atomic_file(folder / RECORDS) as path, path.open("w", encoding="utf-8", newline="\n") as lines:
            for one in records:
                lines.write(json.dumps(one, sort_keys=True, allow_nan=False) + "\n")
    return records


def part_of(suite: dict, part: str) -> dict:
    """The suite with every n-th task, from the k-th on, of part `<k>-of-<n>`. Raises UserError if it has none."""
    number, jobs = (int(text) for text in part.split("-of-"))
    if not (tasks := suite["tasks"][number::jobs]):
        raise UserError(f"part {part} of {len(suite['tasks'])} tasks has none; lower `evaluation.jobs` of the scale")
    return {**suite, "tasks": tasks}


def record(entry: dict, outcomes: dict[str, np.ndarray], draws_R: np.ndarray) -> dict:
    """What is written of a task. Raises UserError if its main metric is not defined for these images."""
    kind, main = kind_of(entry["kind"]), entry["main_metric"]
    metrics = kind.metrics(outcomes, np.ones(kind.units(outcomes)))
    if metrics.get(main) is None:
        raise UserError(f"{entry['key']}: {main} is not defined for this task; name another main_metric in the suite")
    low, high = interval(draws_R, kind.units(outcomes))
    facts = kind.facts(outcomes) | ({"num_skipped": int(outcomes["skipped"])} if outcomes["skipped"] else {})
    log.info("%s: %s %.4f (%.4f to %.4f)", entry["key"], main, metrics[main], low, high)
    return {
        "key": entry["key"],
        "dataset": entry["title"],
        "kind": entry["kind"],
        "main_metric": main,
        "metrics": {**metrics, "main_metric": metrics[main]},
        "interval": [low, high],
        "chance": kind.chance(outcomes),
        **facts,
    }


def _teachers(suite: dict, folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of the models that tasks compare with."""
    names = suite.get("teachers", [])
    if len(names) != len(folders):
        raise UserError(f"tasks compare with {listed(names)}, but --teachers names {len(folders)} folders; give those")
    return dict(zip(names, folders, strict=True))


def _token(model_dirs: Sequence[Path], tasks_dir: Path, suite: dict) -> str:
    """What decides the records: code, settings, weights, and the files of the tasks."""
    weights = [sha256_file(weights_file(folder)) for folder in model_dirs]
    files = [
        (entry["key"], stamps(folder, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))))
        for entry in suite["tasks"]
        for folder in [task_folder(tasks_dir, entry)]
    ]
    code = [own(name) for name in (__name__, *modules_of(suite["tasks"]))]
    return sha256(json.dumps([code, suite, weights, files], sort_keys=True).encode())
