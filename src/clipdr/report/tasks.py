"""Each task of a published model beside its published value: whether our evaluation gives the same numbers.

Two evaluations of the same weights differ by the precision of the text tower, by decoders and by resizing; a tolerance
says how much is expected. It is 0.1 percentage points, and 0.3 for fewer than 2000 images. FMoW's worst region has four
images, so that one image more is 25 points: there is no tolerance, and it is said.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from clipdr.evaluate.records import RECORDS, read_records
from clipdr.text import MISSING, number

SMALL, WIDE, NARROW = 2000, 0.3, 0.1
FEW = "FMoW"  # the task with the region of four images
RULE = (
    f"A difference is expected to be at most {NARROW} percentage points, or {WIDE} for fewer than {SMALL} images; of "
    f"{FEW} nothing is expected, because its worst region may be the one of four images."
)


def task_lines(experiment: Mapping, runs: Iterable[Mapping], results: Path) -> list[dict[str, str]]:
    """One line per row with published values of each task, and task; none where no such row is scored."""
    published = {row["name"]: row["tasks"] for row in experiment["rows"] if "tasks" in row}
    lines = []
    for run in runs:
        records = [one for folder in run["scores"] for one in read_records(results / folder / RECORDS).values()]
        scored = {record["dataset"]: record for record in records}
        for title, value in published.get(run["row"], {}).items():
            lines.append({"row": run["row"], "task": title, **_line(title, 100 * value, scored.get(title))})
    return lines


def _line(title: str, paper: float, record: Mapping | None) -> dict[str, str]:
    if record is None:
        return {"ours": "missing", "published": number(paper, 2), **dict.fromkeys(("difference", "within"), MISSING)}
    ours = 100 * record["metrics"]["main_metric"]
    limit = WIDE if record["num_images"] < SMALL else NARROW
    within = MISSING if title == FEW else f"{'yes' if abs(ours - paper) <= limit else 'no'} (±{limit})"
    difference = number(ours - paper, 2, "+")
    return {"ours": number(ours, 2), "published": number(paper, 2), "difference": difference, "within": within}
