"""What stands for a published model at a scale: its weights, teachers of the zoo, or a model that is trained here.

A row that names a `checkpoint` becomes an ordinary one here, with `weights`, `zoo` or `settings` as the scale's
`checkpoints` has them. Where a scale says nothing of a name, or has no student or teachers of the name that a row asks
for, the row keeps its published values alone.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from clipdr.artifacts import Artifact, artifact
from clipdr.errors import UserError, look_up
from clipdr.words import NETWORK_COLUMNS, slug, words_of

AROUND = 8  # columns of a file of task scores before those of the tasks


def with_checkpoints(experiment: Mapping, scale: Mapping) -> dict:
    """The experiment at a scale, in which no row names a checkpoint any more; without claims of rows that are bare."""
    known = scale.get("checkpoints", {})
    rows = [
        {key: value for key, value in row.items() if key != "checkpoint"} | known.get(row.get("checkpoint"), {})
        for row in experiment["rows"]
    ]
    bare = {row["name"] for row in experiment["rows"] if "checkpoint" in row and row["checkpoint"] not in known}
    return {**experiment, "rows": rows, "comparisons": _claims_without(bare, experiment)}


def with_words(experiment: Mapping, scale: Mapping) -> dict:
    """The experiment without the settings, and the claims, of rows that ask for a student or teachers that are null."""
    models, teachers = (
        {word for word, meaning in scale[key].items() if meaning is None} for key in ("models", "teachers")
    )
    bare = {
        row["name"]
        for row in experiment["rows"]
        if "settings" in row
        for words in [words_of(experiment, row)]
        if words.get("model") in models or words.get("objective", {}).get("teachers") in teachers
    }
    rows = [
        {key: value for key, value in row.items() if key != "settings"} if row["name"] in bare else row
        for row in experiment["rows"]
    ]
    return {**experiment, "rows": rows, "comparisons": _claims_without(bare, experiment)}


def _claims_without(bare: set[str], experiment: Mapping) -> list[Mapping]:
    """What is claimed of other rows, and of networks, which are measured anywhere."""
    return [
        claim
        for claim in experiment.get("comparisons", [])
        if claim["column"] in NETWORK_COLUMNS or not bare & {claim["better"], claim["than"]}
    ]


def with_tasks(experiment: Mapping, folder: Path) -> dict:
    """The experiment with published values of each task in rows of published weights, as `tasks`, fractions.

    Args:
        folder: of the experiment's file, beside which its `task_scores` lies, a line per model.

    Raises UserError for a model that is not in the file, or a file that cannot be read.
    """
    if "task_scores" not in experiment:
        return dict(experiment)
    path, rows = folder / experiment["task_scores"], []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = {f"{line['name']} {line['pretrained']}": line for line in csv.DictReader(stream)}
        for row in experiment["rows"]:
            if {"weights", "task_scores"} <= row.keys():
                line = look_up(f"row {row['name']!r}: task_scores", row["task_scores"], lines, path.name)
                row = {**row, "tasks": {title: float(line[title]) for title in list(line)[AROUND:] if line[title]}}
            rows.append(row)
    except (OSError, KeyError, ValueError) as error:
        where = f"config/experiments/{folder.name}/{path.name}"
        raise UserError(
            f"{where} cannot be read ({error!r:.80}); it has name, pretrained and a column per task"
        ) from None
    return {**experiment, "rows": rows}


def weights_of(entry: Mapping, models: Mapping) -> Artifact:
    """A model folder of published weights: open_clip's, or a file for a model of config/models."""
    if "file" not in entry:
        return artifact("zoo", slug(f"{entry['model']}-{entry['pretrained']}"), entry)
    config = look_up("checkpoints: model", entry["model"], models, "config/models")
    return artifact("zoo", slug(f"{entry['model']}-file"), {**entry, "config": config})
