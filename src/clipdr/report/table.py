"""Build a table: the evaluation records of its runs, reproduced beside published, as .csv, .md and .tex.

Decided here:
* A cell is 100 x the mean of the main metrics of the column's tasks, per seed; then mean and sample standard deviation
  (ddof=1; none with one seed) over seeds. Tasks weigh the same whatever their size, as in DataComp's averages.
* Chance is that of a top-1 score, 100 / classes or 100 / images, averaged over the column's tasks. For retrieval it is
  exact in both directions: with c_i captions on image i and M captions in all, mean_i(c_i / M) = 1 / images.
* A comparison is paired: the difference is taken within each seed. It holds when the mean difference is above zero; the
  number of seeds in favour stands beside it.
* The dictionaries are taken as valid (clipdr.config.check); only what runs have written is checked here.
* The same bytes come out for the same records: fixed decimals, "\\n" line ends, no date.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.files import atomic_file

MISSING = "–"
TEX = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"},
    **{"[": "{[}", "*": "{*}"},  # after the end of a line, a bare [ or * would be read as an argument
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$"},
    **{"λ": r"$\lambda$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$", "−": r"$-$", "–": "--"},
}


def build(experiment: Mapping, scale: Mapping, scale_name: str, runs: Iterable, results: Path, output: Path) -> None:
    """Write `output`.csv, .md and .tex for `runs` (of clipdr.experiments.plan). Raises UserError as `measurements`."""
    measured = measurements(experiment, scale, runs, results)
    summary = summarise(experiment, measured)
    compared = compare(experiment, measured)
    texts = {
        ".csv": csv(experiment, summary),
        ".md": markdown(experiment, scale, scale_name, summary, compared),
        ".tex": latex(experiment, scale_name, summary),
    }
    for suffix, text in texts.items():
        with atomic_file(output.with_name(output.name + suffix)) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def read_records(path: Path) -> dict[str, dict]:
    """Records of one evaluation file by task key. Raises UserError for a missing file, a bad line or a repeated key."""
    if not path.exists():
        raise UserError(f"{path}: missing; evaluate this run first")
    records: dict[str, dict] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            key = record["key"]
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise UserError(f"{path}: line {number} is no evaluation record; evaluate this run again") from error
        if key in records:
            raise UserError(f"{path}: {key} is recorded twice; evaluate this run again")
        records[key] = record
    return records


def measurements(experiment: Mapping, scale: Mapping, runs: Iterable, results: Path) -> pd.DataFrame:
    """One line per row, seed and column: row, seed, column, value, chance (0 to 100), images (a count), tasks (titles).

    Raises UserError naming the file and the task key for a missing file, record or metric, and for a repeated key.
    """
    suite, words = scale["evaluation"]["suite"], scale["evaluation"]["columns"]
    lines = []
    for run in runs:
        path = Path(results) / "runs" / run.name / "eval" / f"{suite}.jsonl"
        records = read_records(path)
        for column in experiment["columns"]:
            cell = _cell([_record(records, key, path) for key in words[column]])
            lines.append({"row": run.row, "seed": run.seed, "column": column, **cell})
    return pd.DataFrame(lines)


def summarise(experiment: Mapping, measured: pd.DataFrame) -> pd.DataFrame:
    """One line per row and column: mean, std, seeds, images, chance, tasks, paper; NaN for no std or no paper."""
    by = measured.groupby(["row", "column"], sort=False)
    summary = by.agg(
        mean=("value", "mean"),
        std=("value", "std"),
        seeds=("seed", "count"),
        **{name: (name, "first") for name in ("images", "chance", "tasks")},
    ).reset_index()
    published = {row["name"]: row.get("published") or {} for row in experiment["rows"]}
    summary["paper"] = [
        published[row].get(column) for row, column in zip(summary["row"], summary["column"], strict=True)
    ]
    summary["paper"] = summary["paper"].astype(float)
    place = {row: i for i, row in enumerate(published)}  # as in the experiment, whatever the order of the runs
    return summary.sort_values("row", key=lambda rows: rows.map(place), kind="stable", ignore_index=True)


def compare(experiment: Mapping, measured: pd.DataFrame) -> pd.DataFrame:
    """One line per comparison: claim, column, better, than, mean, std, seeds, favour, paper.

    `mean` and `std` are of the per-seed differences; `favour` counts the seeds with one above zero; `paper` is the
    published difference, NaN if not published.
    """
    published = {row["name"]: row.get("published") or {} for row in experiment["rows"]}
    lines = []
    for comparison in experiment.get("comparisons") or []:
        better, than, column = comparison["better"], comparison["than"], comparison["column"]
        seeds = measured[measured["column"] == column].pivot(index="seed", columns="row", values="value")
        difference = seeds[better] - seeds[than]
        paper = [published[row].get(column) for row in (better, than)]
        line = {"claim": comparison["claim"], "column": column, "better": better, "than": than}
        line |= {"mean": difference.mean(), "std": difference.std(), "seeds": len(difference)}
        line |= {"favour": int((difference > 0).sum()), "paper": None if None in paper else paper[0] - paper[1]}
        lines.append(line)
    return pd.DataFrame(lines).astype({"paper": float} if lines else {})


def csv(experiment: Mapping, summary: pd.DataFrame) -> str:
    """The whole table, one line per row: settings, seeds, then mean, std, images, chance and paper of each column."""
    lines = []
    for row in experiment["rows"]:
        cells = summary[summary["row"] == row["name"]].set_index("column")
        line = {"row": row["name"], **_settings(experiment, row), "seeds": int(cells["seeds"].iloc[0])}
        for column in experiment["columns"]:
            cell = cells.loc[column]
            line |= {column: cell["mean"], f"{column} std": cell["std"], f"{column} images": int(cell["images"])}
            line |= {f"{column} chance": cell["chance"], f"{column} paper": cell["paper"]}
        lines.append(line)
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.2f", lineterminator="\n")


def markdown(
    experiment: Mapping, scale: Mapping, scale_name: str, summary: pd.DataFrame, compared: pd.DataFrame
) -> str:
    """The table for a reader: what it is and is not, reproduced beside published, the tasks, the comparisons."""
    unpublished = [column for column in experiment["columns"] if not is_published(summary, column)]
    seeds = int(summary["seeds"].max())
    notes = [experiment.get("note"), *(f"{r['name']}: {r['note']}" for r in experiment["rows"] if r.get("note"))]
    parts = [
        f"# {experiment['title']}",
        " ".join(f"{text.rstrip('.')}." for text in [f"Source: {experiment['source']}", *filter(None, notes)]),
        f"> **NOT THE PAPER'S SETTING: these are results at scale `{scale_name}` ({scale['title']}).** "
        "Models, training data and test images differ from the paper's, so reproduced and published values are not "
        "comparable in level. Compare the order of the rows, and differences between rows.",
        _markdown_table(_reader_lines(experiment, scale_name, summary)),
        f"Reproduced values are the mean ± sample standard deviation over {seeds} seed{'' if seeds == 1 else 's'}, "
        f"times 100. {MISSING}: not published."
        + (f" The source has no values for {', '.join(unpublished)}." if unpublished else ""),
        "## What the columns measure here",
        _markdown_table(_task_lines(experiment, summary)),
    ]
    if len(compared):
        parts += ["## Comparisons", _markdown_table([_comparison_line(c, scale_name) for _, c in compared.iterrows()])]
        parts.append(
            "A difference is taken within each seed, then averaged (± standard deviation over seeds). The direction "
            "holds when the mean is above zero."
        )
    return "\n\n".join(parts) + "\n"


def latex(experiment: Mapping, scale_name: str, summary: pd.DataFrame) -> str:
    """A booktabs tabular, reproduced beside published, to be put into a table environment."""
    settings = _setting_names(experiment)
    columns = [(column, 2 if is_published(summary, column) else 1) for column in experiment["columns"]]
    lead, first, rules = ["row", *settings], [], []
    at = len(lead) + 1
    for column, width in columns:
        first.append(rf"\multicolumn{{{width}}}{{c}}{{{tex(column)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    second = [tex({"lambda": "λ"}.get(name, name)) for name in lead]
    second += [tex(head) for _, width in columns for head in (f"scale {scale_name}", "paper")[:width]]
    body = [[tex(value) for value in line.values()] for line in _reader_lines(experiment, scale_name, summary)]
    lines = [
        f"% {experiment['title']} ({experiment['source']}), reproduced at scale {scale_name}: not the paper's setting,",
        "% not comparable in level. Needs \\usepackage{booktabs}.",
        rf"\begin{{tabular}}{{{'l' * len(lead)}{'r' * sum(width for _, width in columns)}}}",
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


def is_published(summary: pd.DataFrame, column: str) -> bool:
    """Whether any row of a summary has a published value in `column`."""
    return bool(summary.loc[summary["column"] == column, "paper"].notna().any())


def tex(text: object) -> str:
    """`text` with LaTeX's special characters escaped and a few signs (λ, ±, –) as LaTeX writes them."""
    return "".join(TEX.get(character, character) for character in str(text))


def _record(records: Mapping, key: str, path: Path) -> dict:
    if key not in records:
        raise UserError(f"{path}: no record of {key}; evaluate this run again with a suite that has it")
    if records[key].get("metrics", {}).get("main_metric") is None:
        raise UserError(f"{path}: {key} has no main_metric; evaluate this run again")
    return records[key]


def _cell(records: list[dict]) -> dict:
    values = [record["metrics"]["main_metric"] for record in records]
    chances = [1 / (record.get("num_classes") or record["num_images"]) for record in records]
    return {
        "value": 100 * sum(values) / len(values),
        "chance": 100 * sum(chances) / len(chances),
        "images": sum(record["num_images"] for record in records),
        "tasks": ", ".join(record["dataset"] for record in records),
    }


def _setting_names(experiment: Mapping) -> list[str]:
    return list(dict.fromkeys(name for row in experiment["rows"] for name in row["settings"]))


def _settings(experiment: Mapping, row: Mapping) -> dict[str, str]:
    """What the row varies, in the paper's words: lists joined by +, numbers without trailing zeros."""
    common = experiment.get("settings") or {}
    return {name: _word(row["settings"].get(name, common.get(name, ""))) for name in _setting_names(experiment)}


def _word(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _number(value: float, decimals: int = 1, sign: str = "") -> str:
    return MISSING if pd.isna(value) else f"{value:{sign}.{decimals}f}"


def _plus_minus(mean: float, std: float, sign: str = "") -> str:
    return _number(mean, sign=sign) if pd.isna(std) else f"{_number(mean, sign=sign)} ± {_number(std)}"


def _reader_lines(experiment: Mapping, scale_name: str, summary: pd.DataFrame) -> list[dict[str, str]]:
    lines = []
    for row in experiment["rows"]:
        line = {"row": row["name"], **_settings(experiment, row)}
        if "lambda" in line:
            line = {"λ" if name == "lambda" else name: value for name, value in line.items()}
        for column in experiment["columns"]:
            cell = summary[(summary["row"] == row["name"]) & (summary["column"] == column)].iloc[0]
            line[f"{column} (scale {scale_name})"] = _plus_minus(cell["mean"], cell["std"])
            if is_published(summary, column):
                line[f"{column} (paper)"] = _number(cell["paper"])
        lines.append(line)
    return lines


def _task_lines(experiment: Mapping, summary: pd.DataFrame) -> list[dict[str, str]]:
    cells = summary.drop_duplicates("column").set_index("column")
    lines = []
    for column in experiment["columns"]:
        cell = cells.loc[column]
        line = {"column": column, "tasks": cell["tasks"], "test images": str(int(cell["images"]))}
        lines.append(line | {"chance": _number(cell["chance"], 2)})
    return lines


def _comparison_line(comparison: Mapping, scale_name: str) -> dict[str, str]:
    verdict = "holds" if comparison["mean"] > 0 else "does not hold"
    return {
        "claim": comparison["claim"],
        "rows": f"“{comparison['better']}” − “{comparison['than']}”",
        "column": comparison["column"],
        f"difference (scale {scale_name})": _plus_minus(comparison["mean"], comparison["std"], "+"),
        "difference (paper)": _number(comparison["paper"], sign="+"),
        "direction": f"{verdict} ({comparison['favour']} of {comparison['seeds']} seeds)",
    }


def _markdown_table(lines: list[dict[str, str]]) -> str:
    escaped = [{key: value.replace("|", "\\|") for key, value in line.items()} for line in lines]
    return pd.DataFrame(escaped).to_markdown(index=False, disable_numparse=True)
