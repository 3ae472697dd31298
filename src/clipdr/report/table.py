"""Build a table: the evaluation records of its runs, reproduced beside published, as .csv, .md and .tex.

Decided here:
* A cell is the mean over seeds (`clipdr.report.scores`) with its interval of 95 %; the .csv has the sample standard
  deviation over seeds too (ddof=1; none with one seed).
* A comparison is paired, by seed and by test image, and judged by its interval (`clipdr.report.verdicts`).
* The dictionaries are taken as valid (clipdr.checks.check); only what runs have written is checked here.
* Network columns are read by clipdr.report.networks. A column has our values and beside them the paper's; if
  all rows lack one of the two, it is left out.
* The same bytes come out for the same records: fixed decimals, "\\n" line ends, no date.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from clipdr.evaluate.intervals import percentiles
from clipdr.files import atomic_file
from clipdr.report import correlation, networks
from clipdr.report.efficiency import efficiency_lines
from clipdr.report.scores import Scores, missing_tasks, over_seeds, read
from clipdr.report.tasks import RULE as RULE_OF_TASKS
from clipdr.report.tasks import task_lines
from clipdr.report.verdicts import RULE, compare, verdict_lines
from clipdr.report.work import LEGEND, with_work
from clipdr.text import MISSING, between, markdown_table, number, tex
from clipdr.words import (
    NETWORK_COLUMNS,
    WORK_COLUMNS,
    columns_of,
    evaluation_columns,
    has_scores,
    published_of,
    words_of,
)

Halves = list[tuple[str, str, dict[str, str]]]  # column, heading, row -> text
EFFICIENCY = (
    "How many times less the first series needs for the best accuracy of the other, read off between the points of the "
    "curves (straight over the logarithm); ≥ where it starts above that accuracy, – where it never reaches it, or "
    "starts above it no sooner."
)


def build(report: Mapping, results: Path, output: Path) -> None:
    """Write `output`.csv, .md and .tex of a report.

    `report` is the settings.json of a table: `experiment`; `scale` with its `name` and `title`, and what
    `clipdr.report.scores.read` takes of it; and the `runs`.

    Raises UserError as clipdr.report.scores.read, clipdr.report.networks.measurements and clipdr.report.work.with_work.
    """
    report = with_work(report, results)
    experiment, scale, scale_name = report["experiment"], report["scale"], report["scale"]["name"]
    scores = read(experiment, scale, report["runs"], results)
    summary = summarise(experiment, scores)
    compared, tasks = compare(experiment, scores), task_lines(experiment, report["runs"], results)
    cells, conditions = networks.measurements(experiment, results)
    halves = _halves(experiment, scale_name, summary, cells, report["work"])
    texts = {
        ".csv": csv(experiment, summary, cells, conditions, report["work"]),
        ".md": markdown(experiment, scale, scale_name, summary, compared, cells, conditions, tasks, halves),
        ".tex": latex(experiment, scale_name, halves, len(cells) > 0),
    }
    if "curve" in experiment:
        texts[".md"] += (
            f"\n## Learning efficiency\n\n{markdown_table(efficiency_lines(report, summary))}\n\n{EFFICIENCY}\n"
        )
    if report["work"]:
        texts[".md"] += f"\n## Work\n\n{LEGEND}\n"
    if "correlation" in experiment:
        found = markdown_table(correlation.lines(correlation.correlations(experiment, scores)))
        texts[".md"] += f"\n## Rank correlation\n\n{found}\n\n{correlation.RULE}\n"
    for suffix, text in texts.items():
        with atomic_file(output.with_name(output.name + suffix)) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def summarise(experiment: Mapping, scores: Scores) -> pd.DataFrame:
    """One line per row and evaluation column: mean, std, low, high, seeds, images, chance, tasks, at_chance, paper.

    NaN where there is no std, no published value, or no run of the row.
    """
    by = scores.measured.groupby(["row", "column"], sort=False)
    summary = by.agg(
        mean=("value", "mean"),
        std=("value", "std"),
        seeds=("seed", "count"),
        **{name: (name, "first") for name in ("images", "chance", "tasks", "at_chance")},
    )
    found = {cell: percentiles(over_seeds(scores.of(*cell, list(lines["seed"])))) for cell, lines in by if len(lines)}
    bounds = pd.DataFrame.from_dict(found, orient="index", columns=["low", "high"]).reindex(summary.index)
    rows = [row["name"] for row in experiment["rows"]]  # as in the experiment, whatever the order of the runs
    cells = pd.MultiIndex.from_product([rows, evaluation_columns(experiment)], names=["row", "column"])
    summary = summary.join(bounds).reindex(cells).reset_index()
    published = published_of(experiment)
    paper = [published[row].get(column) for row, column in cells]
    return summary.assign(paper=pd.Series(paper, dtype=float))


def csv(experiment: Mapping, summary: pd.DataFrame, cells: pd.DataFrame, conditions: Mapping, counted: Mapping) -> str:
    """The whole table, one line per row: labels, settings, seeds, network, device, then the fields of each column.

    Those are mean, std, low and high of the interval, images, chance and paper of an evaluation column; value and
    paper of parameters and of work; and value, q1, q3, the same of torch, and paper of a latency.
    """
    published, trained, lines = published_of(experiment), has_scores(experiment), []
    ours = {(cell["row"], cell["column"]): cell for _, cell in pd.concat([summary, cells]).iterrows()}
    for row in experiment["rows"]:
        line = {"row": row["name"], **_labels(experiment, row), **row_settings(experiment, row)}
        if trained:
            line["seeds"] = int(summary.loc[summary["row"] == row["name"], "seeds"].fillna(0).iloc[0])
        if len(cells):
            line["network"] = row.get("network", "")
        if conditions:
            line["device"] = conditions["device"] if "network" in row else ""
        for column in experiment["columns"]:
            cell = ours.get((row["name"], column), {})
            if column in WORK_COLUMNS:
                value = counted[column].get(row["name"])
                line[column] = None if value is None else f"{value:.6g}"
            else:
                line |= _fields(column, cell, trained, len(cells) > 0)
            line[f"{column} paper"] = published[row["name"]].get(column)
        lines.append(line)
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.2f", lineterminator="\n")


def markdown(
    experiment: Mapping,
    scale: Mapping,
    scale_name: str,
    summary: pd.DataFrame,
    compared: pd.DataFrame,
    cells: pd.DataFrame,
    conditions: Mapping,
    tasks: list[dict[str, str]],
    halves: Halves,
) -> str:
    """The table for a reader: what it is and is not, ours beside published, what was measured, the comparisons."""
    rows = experiment["rows"]
    notes = [experiment.get("note"), *(f"{r['name']}: {r['note']}" for r in rows if r.get("note"))]
    parts = [
        f"# {experiment['title']}",
        " ".join(f"{text.rstrip('.')}." for text in [f"Source: {experiment['source']}", *filter(None, notes)]),
        _warning(experiment, scale, scale_name, len(cells) > 0),
        markdown_table(_reader_lines(experiment, halves)),
        _legend(experiment, summary),
        *networks.notes(experiment, cells, conditions),
    ]
    if has_scores(experiment):
        parts += ["## What the columns measure here", markdown_table(_task_lines(experiment, summary))]
        parts += _missing(experiment, scale)
    if tasks:
        parts += ["## Each task", markdown_table(tasks), RULE_OF_TASKS]
    if len(cells):
        parts += ["## Networks measured here", markdown_table(networks.network_lines(cells))]
    if len(compared):
        parts += ["## Comparisons", markdown_table(verdict_lines(compared, scale_name)), RULE]
    if lines := networks.comparison_lines(experiment, cells):
        parts += ["## Comparisons of networks", markdown_table(lines)]
        parts.append(
            "A difference is one of counts or medians, and in percent of the second row. Less is better: the direction "
            "holds when it is below zero."
            + (f" {networks.NO_DIRECTION}" if any(line["direction"] == networks.ALIKE for line in lines) else "")
        )
    return "\n\n".join(parts) + "\n"


def latex(experiment: Mapping, scale_name: str, halves: Halves, measured: bool) -> str:
    """A booktabs tabular, ours beside published, to be put into a table environment."""
    lead = ["row", *_label_names(experiment), *_setting_names(experiment)]
    first, rules = [], []
    at = len(lead) + 1
    for column in experiment["columns"]:
        width = sum(half[0] == column for half in halves)
        first.append(rf"\multicolumn{{{width}}}{{c}}{{{tex(column)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    second = [tex({"lambda": "λ"}.get(name, name)) for name in lead]
    second += [tex(heading) for _, heading, _ in halves]
    body = [[tex(value) for value in line.values()] for line in _reader_lines(experiment, halves)]
    lines = [
        *_tex_comments(experiment, scale_name, measured),
        rf"\begin{{tabular}}{{{'l' * len(lead)}{'r' * len(halves)}}}",
        r"\toprule",
        " & ".join([""] * len(lead) + first).strip() + r" \\",
        "".join(rules),
        " & ".join(second) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def is_published(experiment: Mapping, column: str) -> bool:
    """Whether any row of an experiment has a published value in `column`."""
    return any(values.get(column) is not None for values in published_of(experiment).values())


def _label_names(experiment: Mapping) -> list[str]:
    return list(dict.fromkeys(name for row in experiment["rows"] for name in row.get("labels", {})))


def _labels(experiment: Mapping, row: Mapping) -> dict[str, str]:
    return {name: row.get("labels", {}).get(name, "") for name in _label_names(experiment)}


def _setting_names(experiment: Mapping) -> list[str]:
    varied = [columns_of(row["settings"]) for row in experiment["rows"] if "settings" in row]
    return list(dict.fromkeys(name for columns in varied for name in columns))


def row_settings(experiment: Mapping, row: Mapping) -> dict[str, str]:
    """What the row varies, in the paper's words: lists joined by +, numbers without trailing zeros."""
    if "settings" not in row:
        return dict.fromkeys(_setting_names(experiment), "")
    words = columns_of(words_of(experiment, row))
    return {name: _word(words.get(name, "")) for name in _setting_names(experiment)}


def _word(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _fields(column: str, cell: Mapping, trained: bool, measured: bool) -> dict:
    """The fields of ours that the .csv has of a column; NaN where `cell` has none."""
    if column in NETWORK_COLUMNS:
        latency = NETWORK_COLUMNS[column][0] == "latency"
        names = ("value", "q1", "q3", "torch", "torch q1", "torch q3") if latency else ("value",)
        return {column if name == "value" else f"{column} {name}": cell.get(name) for name in names if measured}
    if not trained:
        return {}
    images = "" if pd.isna(cell["images"]) else int(cell["images"])
    ours = {f"{column} {name}": cell[name] for name in ("std", "low", "high")}
    return {column: cell["mean"], **ours, f"{column} images": images, f"{column} chance": cell["chance"]}


def _work(value: float | None) -> str:
    """With three digits or more, because a miniature computes a millionth of what the papers' models do."""
    return MISSING if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _halves(
    experiment: Mapping, scale_name: str, summary: pd.DataFrame, cells: pd.DataFrame, counted: Mapping
) -> Halves:
    """(column, heading, row -> text) of each half of a column that has anything to show, ours before the paper's."""
    halves = []
    for column in experiment["columns"]:
        heading, of_paper = f"scale {scale_name}", "paper"
        if column in NETWORK_COLUMNS:
            heading, of_paper = networks.headings(experiment, column)
            ours = networks.texts(cells, column)
        elif column in WORK_COLUMNS:
            ours = {row: _work(value) for row, value in counted[column].items()}
        else:
            chosen = summary[summary["column"] == column].dropna(subset="mean")
            ours = {c["row"]: between(c["mean"], c["low"], c["high"]) for _, c in chosen.iterrows()}
        if ours:
            halves.append((column, heading, ours))
        if is_published(experiment, column):
            paper = {row: number(values.get(column)) for row, values in published_of(experiment).items()}
            halves.append((column, of_paper, paper))
    return halves


def _reader_lines(experiment: Mapping, halves: Halves) -> list[dict[str, str]]:
    lines = []
    for row in experiment["rows"]:
        line = {"row": row["name"], **_labels(experiment, row), **row_settings(experiment, row)}
        if "lambda" in line:
            line = {"λ" if name == "lambda" else name: value for name, value in line.items()}
        line |= {f"{column} ({heading})": texts.get(row["name"], MISSING) for column, heading, texts in halves}
        lines.append(line)
    return lines


def _warning(experiment: Mapping, scale: Mapping, scale_name: str, measured: bool) -> str:
    """What the numbers are not, above the table."""
    if not has_scores(experiment):
        ours = " Only parameters and latency are ours, beside the paper's." if measured else ""
        return f"> **ACCURACY IS THE PAPER'S: no model was trained for this table.**{ours}"
    if any("weights" in row for row in experiment["rows"]):
        return "> **Our accuracy is that of published weights, scored here on the tasks that were there.**"
    beside = (
        " Parameters and latency are not of these models but of the paper's full-size networks." if measured else ""
    )
    return (
        f"> **NOT THE PAPER'S SETTING: these are results at scale `{scale_name}` ({scale['title']}).** "
        "Models, training data and test images differ from the paper's, so reproduced and published values are not "
        f"comparable in level. Compare the order of the rows, and differences between rows.{beside}"
    )


def _legend(experiment: Mapping, summary: pd.DataFrame) -> str:
    unpublished = [column for column in experiment["columns"] if not is_published(experiment, column)]
    parts = []
    if has_scores(experiment):
        seeds = int(summary["seeds"].max())
        parts.append(
            f"Reproduced values are means over {seeds} seed{'' if seeds == 1 else 's'}, times 100, with the middle 95 "
            f"% of a bootstrap over test images{'' if seeds == 1 else ' and seeds'}."
        )
    whole = len(evaluation_columns(experiment)) == len(experiment["columns"]) and not summary["mean"].isna().any()
    parts.append(f"{MISSING}: not published{'' if whole else ', or not measured'}.")
    if unpublished:
        parts.append(f"The source has no values for {', '.join(unpublished)}.")
    return " ".join(parts)


def _tex_comments(experiment: Mapping, scale_name: str, measured: bool) -> list[str]:
    source = f"% {experiment['title']} ({experiment['source']})"
    if has_scores(experiment):
        lines = [f"{source}, reproduced at scale {scale_name}: not the paper's setting,", "% not comparable in level."]
    else:
        lines = [f"{source}:", "% accuracy is the paper's, no model was trained for this table."]
    if measured:
        lines[-1] += " Parameters and latency are of full-size networks."
    return [*lines[:-1], lines[-1] + " Needs \\usepackage{booktabs}."]


def _missing(experiment: Mapping, scale: Mapping) -> list[str]:
    """A sentence on the columns that cannot be shown, because tasks were not there."""
    gone = {c: missing_tasks(scale["columns"][c], scale) for c in evaluation_columns(experiment)}
    named = "; ".join(f"{column}: {', '.join(words)}" for column, words in gone.items() if words)
    return [f"Not shown, for want of tasks: {named}."] if named else []


def _task_lines(experiment: Mapping, summary: pd.DataFrame) -> list[dict[str, str]]:
    cells = summary.dropna(subset="mean").drop_duplicates("column").set_index("column")
    lines = []
    for column in [column for column in evaluation_columns(experiment) if column in cells.index]:
        cell = cells.loc[column]
        line = {"column": column, "tasks": cell["tasks"], "test images": str(int(cell["images"]))}
        lines.append(line | {"chance": number(cell["chance"], 2), "tasks at chance": cell["at_chance"] or MISSING})
    return lines
