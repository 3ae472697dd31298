# What the rules share: the configuration, the runs it asks for, and the fingerprint of the code a rule runs.
import json
import os
import re
import site
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
SRC = ROOT / "src"
site.addsitedir(SRC)
# Jobs run `python -m clipdr...` with this interpreter, or with that of their conda environment, which goes before it:
# conda puts it where the active environment stands in PATH, and in front only if it knows of none.
os.environ.pop("CONDA_SHLVL", None)
os.environ.update(
    PYTHONNOUSERSITE="1",
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
)
# Not in os.environ: Snakemake takes PYTHONPATH away from jobs in conda environments.
shell.prefix("set -euo pipefail; export PYTHONPATH={SRC:q}; ")

from clipdr import config as configuration
from clipdr.errors import UserError, nearest
from clipdr.experiments import has_runs, networks, plan, slug, unique_runs, zoo_settings
from clipdr.fingerprint import fingerprint

try:
    CONFIG = configuration.load_config(ROOT, config)
    SCALE = configuration.load_scale(ROOT, CONFIG["scale"])
    MODELS = configuration.load_models(ROOT)
    EXPERIMENTS, MISFITS = configuration.load_experiments(ROOT, CONFIG)
    PLANS = {name: plan(experiment, SCALE, MODELS) for name, experiment in EXPERIMENTS.items()}
except UserError as error:
    raise WorkflowError(str(error)) from None

RUNS = unique_runs(run for runs in PLANS.values() for run in runs)
# Full-size networks: those whose parameters stand in tables, and all by the names of their files.
COUNTED = sorted({name for experiment in EXPERIMENTS.values() for name in networks(experiment, "params")})
TIMED = {name for experiment in EXPERIMENTS.values() for name in networks(experiment, "latency")}
NETWORKS = {slug(name): name for name in [*MODELS, *sorted(TIMED - MODELS.keys())]}
if clash := next((name for name in [*MODELS, *TIMED] if NETWORKS[slug(name)] != name), None):
    raise WorkflowError(
        f"networks {clash!r} and {NETWORKS[slug(clash)]!r} share the file name {slug(clash)}; rename one"
    )
SUITE = SCALE["evaluation"]["suite"]
SUITE_TASKS = configuration.load_suite(ROOT, SUITE)["tasks"]


pathvars:
    pool=SCALE["pool"]["name"],


wildcard_constraints:
    dataset="|".join(entry["name"] for entry in SCALE["datasets"].values()),
    augmentation="|".join(SCALE["augmentations"]),
    member="captioner|" + "|".join(SCALE["zoo"]["teachers"]),
    experiment="|".join(EXPERIMENTS),
    network="|".join(map(re.escape, NETWORKS)),
    run="[^/]+",
    side=r"\d+",


def code(module):
    """Changes when the code that `module` runs changes, not when its comments do."""
    return fingerprint(module, ROOT)


def as_json(settings):
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def member_settings(wildcards):
    return as_json(zoo_settings(SCALE, wildcards.member))


def member_config(wildcards):
    return as_json(MODELS[zoo_settings(SCALE, wildcards.member)["model"]])


def subset_settings(wildcards):
    return next(entry for entry in SCALE["datasets"].values() if entry["name"] == wildcards.dataset)


def augmentation_settings(wildcards):
    return as_json(SCALE["augmentations"][wildcards.augmentation])


def run_settings(wildcards):
    return as_json(RUNS[wildcards.run])


def run_views(wildcards):
    settings = RUNS[wildcards.run]
    side = settings["model_config"]["model_cfg"]["vision_cfg"]["image_size"]
    return "results/views/{pool}/{dataset}-{augmentation}-{side}px".format(side=side, **settings)


def records(wildcards):
    """The evaluations that an experiment's table reads."""
    names = {run.name for run in PLANS[wildcards.experiment]}
    return [f"results/runs/{name}/eval/{SUITE}.jsonl" for name in sorted(names)]


def measurements(wildcards):
    """Parameters and latencies of full-size networks that an experiment's table reads."""
    counts = ["results/models/counts.json"] if networks(EXPERIMENTS[wildcards.experiment], "params") else []
    return counts + latencies(wildcards.experiment)


def latencies(experiment):
    return [f"results/models/latency/{slug(name)}.json" for name in networks(EXPERIMENTS[experiment], "latency")]


def figure1_experiment(wildcards):
    if "table7" not in EXPERIMENTS:
        raise WorkflowError(MISFITS.get("table7", "config/experiments/table7.yaml does not exist; figure1 draws it"))
    return as_json(EXPERIMENTS["table7"])


def figure1_latencies(wildcards):
    figure1_experiment(wildcards)
    return latencies("table7")


def network_name(wildcards):
    return NETWORKS[wildcards.network]


def network_settings(wildcards):
    """What config/models says of a network; nothing of open_clip's own."""
    return as_json(MODELS.get(network_name(wildcards)))


def report_settings(wildcards):
    """What of experiment, scale and suite decides the report. The files are `ancient`: a comment reruns nothing."""
    scale = {"name": CONFIG["scale"], "title": SCALE["title"], "evaluation": SCALE["evaluation"]}
    return as_json({"experiment": EXPERIMENTS[wildcards.experiment], "scale": scale, "tasks": SUITE_TASKS})


def report_files(experiment):
    """Table, and the figure of what was trained for it."""
    tables = [f"results/tables/{experiment}.{suffix}" for suffix in ("csv", "md", "tex")]
    return [*tables, *([f"results/figures/{experiment}.png"] if has_runs(EXPERIMENTS[experiment]) else [])]


def no_such_experiment(wildcards):
    hint = nearest(wildcards.name, EXPERIMENTS) or f"; known: {', '.join(EXPERIMENTS)}"
    missing = f"config/experiments/{wildcards.name}.yaml does not exist{hint}"
    raise WorkflowError(MISFITS.get(wildcards.name, missing))
