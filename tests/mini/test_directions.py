"""The directions that the miniature must share with the paper's Table 2. Run after `make run`: pytest -m mini."""

from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.mini
TABLE = Path(__file__).parents[2] / "results/tables/table2.csv"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    assert TABLE.is_file(), f"{TABLE} is missing; `make run` first"
    assert "scale `mini`" in TABLE.with_suffix(".md").read_text(), "the table is not of scale mini; `make run` again"
    table = pd.read_csv(TABLE).set_index("row")
    assert (table["seeds"] == 3).all()
    return table


@pytest.mark.parametrize(
    ("better", "than"),
    [
        ("+ synthetic captions", "real captions only"),
        ("+ distillation", "+ synthetic captions"),
        ("+ strong augmentation", "+ distillation"),
    ],
)
def test_direction(rows: pd.DataFrame, better: str, than: str):
    assert rows.loc[better, "IN-val"] > rows.loc[than, "IN-val"]


def test_every_row_beats_chance_by_far(rows: pd.DataFrame):
    assert (rows["IN-val"] > 10 * rows["IN-val chance"]).all()
