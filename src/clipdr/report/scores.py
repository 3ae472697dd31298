"""What the runs of a table scored: per row, seed and column, as measured and for test images drawn anew.

Decided here:
* A value is 100 x the mean of the metrics of the column's tasks. Tasks weigh the same whatever their size, as in
  DataComp's averages.
* A task is at chance if no run of the table has an interval that lies above the value of guesses. At scales that say so
  (`evaluation.leave_out_chance`) such tasks stay out of the column's mean and are named beside it; if all are at
  chance, all stay.
* Intervals are those of a bootstrap over test images and seeds together. The draws of a task's images are the same for
  all runs, so that the difference of two rows is a paired one.

Shapes: S seeds, R draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from clipdr.evaluate.intervals import SEED, drawn, percentiles
from clipdr.evaluate.kinds import kind_of
from clipdr.evaluate.outcomes import DRAWS, load, outcomes_file
from clipdr.evaluate.records import RECORDS, metric_of, read_records
from clipdr.words import MAIN, evaluation_columns, task_and_metric

MEASURED = {
    **{"row": str, "seed": int, "column": str, "value": float, "chance": float},
    **{"images": int, "tasks": str, "at_chance": str},
}


@dataclass(frozen=True)
class Score:
    """A metric of a task: its value and that of guesses, fractions, and the values of draws of its images, [R]."""

    title: str
    images: int
    value: float
    chance: float
    draws_R: np.ndarray

    @property
    def at_chance(self) -> bool:
        return percentiles(self.draws_R)[0] <= self.chance


@dataclass(frozen=True)
class Scores:
    """The cells of a table: `measured` has a line per row, seed and column (`MEASURED`, percent), `draws_R` theirs."""

    measured: pd.DataFrame
    draws_R: dict[tuple[str, int, str], np.ndarray]

    def of(self, row: str, column: str, seeds: Sequence[int]) -> np.ndarray:
        """Draws [S, R] of a row's cell for some seeds, in their order, in percent."""
        return np.stack([self.draws_R[row, seed, column] for seed in sorted(seeds)])


def read(experiment: Mapping, scale: Mapping, runs: Iterable[Mapping], results: Path) -> Scores:
    """The scores of a table's runs.

    Args:
        experiment: of whose columns those of accuracy are read.
        scale: `columns` maps each to its tasks, as `<task>` or `<task>:<metric>`; `leave_out_chance`; and `absent`,
            tasks that were not there: columns that need one have no values.
        runs: each with its `row`, its `seed` and the folders of its `scores` below `results`.

    Raises:
        UserError: naming the file and the task for a missing file, record or metric.
    """
    runs = list(runs)
    columns = evaluation_columns(experiment) if runs else []  # of a table without runs the scale says nothing
    words = {column: words for column in columns if not missing_tasks(words := scale["columns"][column], scale)}
    wanted = list(dict.fromkeys(word for of_column in words.values() for word in of_column))
    found = [{word: score for word, score in _scores(run, wanted, Path(results))} for run in runs]
    dull = {word for word in wanted if all(of_run[word].at_chance for of_run in found)}
    lines, draws_R = [], {}
    for run, of_run in zip(runs, found, strict=True):
        for column in words:
            left_out = dull if scale.get("leave_out_chance") and set(words[column]) - dull else set()
            kept = [of_run[word] for word in words[column] if word not in left_out]
            at_chance = [of_run[word].title for word in words[column] if word in dull]
            lines.append({"row": run["row"], "seed": run["seed"], "column": column, **_cell(kept, at_chance)})
            draws_R[run["row"], run["seed"], column] = 100 * np.mean([score.draws_R for score in kept], axis=0)
    return Scores(pd.DataFrame(lines, columns=list(MEASURED)).astype(MEASURED), draws_R)


def missing_tasks(words: Sequence[str], scale: Mapping) -> list[str]:
    """Those of a column's tasks that were not there to be scored: a mean without them is that of another column."""
    return [word for word in words if task_and_metric(word)[0] in scale.get("absent", ())]


def over_seeds(draws_SR: np.ndarray) -> np.ndarray:
    """Means [R] over seeds that are drawn anew, too: which ones is the same for all rows."""
    seeds, draws = draws_SR.shape
    chosen_SR = np.random.default_rng([SEED, seeds]).integers(seeds, size=(seeds, draws))
    return np.take_along_axis(draws_SR, chosen_SR, axis=0).mean(axis=0)


def _scores(run: Mapping, words: Sequence[str], results: Path) -> Iterable[tuple[str, Score]]:
    """(word, score) of the tasks and metrics that are asked for."""
    folders = [results / folder for folder in run["scores"]]
    place = {key: (folder, record) for folder in folders for key, record in read_records(folder / RECORDS).items()}
    records = {key: record for key, (_, record) in place.items()}
    main_R = {key: draws_R for folder in folders for key, draws_R in load(folder / DRAWS).items()}
    for word in words:
        key, metric = task_and_metric(word)
        value = metric_of(records, key, metric, folders[0] / RECORDS)
        folder, record = place[key]
        if metric == MAIN:
            draws_R, metric = main_R[key], record["main_metric"]
        else:
            draws_R = drawn(kind_of(record["kind"]), load(folder / outcomes_file(key)), metric, key)
        chance = metric_of({key: {"metrics": record["chance"]}}, key, metric, folder / RECORDS)
        yield word, Score(record["dataset"], record["num_images"], value, chance, draws_R)


def _cell(scores: Sequence[Score], at_chance: Sequence[str]) -> dict:
    return {
        "value": 100 * sum(score.value for score in scores) / len(scores),
        "chance": 100 * sum(score.chance for score in scores) / len(scores),
        "images": sum(score.images for score in scores),
        "tasks": ", ".join(dict.fromkeys(score.title for score in scores)),
        "at_chance": ", ".join(dict.fromkeys(at_chance)),
    }
