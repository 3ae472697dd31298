"""The miniature as it is shipped, for tests of what configuration may say."""

from pathlib import Path

from clipdr import config
from clipdr.checks import check as check_files
from clipdr.schema import load

REPO = Path(__file__).parents[1]
TABLE2, MINI = "config/experiments/mobileclip/table2.yaml", "config/scales/mini.yaml"
SHIPPED = config.load_scale(REPO, "mini")
RECIPE = {**SHIPPED["training"], "steps": 600, "warmup": 60, "lr": 0.002, "min_lr": 0.0}
DATASETS = {"DataComp-12M": {"name": "12M", "size": 400, "seed": 0}}
SCALE, SUITE = config.with_suites({**SHIPPED, "training": RECIPE, "datasets": DATASETS}, REPO, MINI)
EXPERIMENT = load(REPO, TABLE2, "experiment")
OBJECTIVES = config.load_objectives(REPO)
MEMBERS = [*SCALE["zoo"]["teachers"].values(), SCALE["zoo"]["captioner"]]
MODEL = {"model_cfg": {"vision_cfg": {"image_size": 32}}}
MODELS = dict.fromkeys([*SCALE["models"].values(), *(member["model"] for member in MEMBERS)], MODEL)


def check(experiment: dict = EXPERIMENT, scale: dict = SCALE, models: dict = MODELS, suite: dict = SUITE) -> list:
    return check_files(experiment, scale, models, suite, OBJECTIVES, TABLE2, MINI)
