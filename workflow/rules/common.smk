# What the rules share: the configuration, the artifacts it asks for, and the fingerprint of the code a rule runs.
import gc
import json
import os
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError

gc.set_threshold(100_000)  # a graph of thousands of jobs is no garbage; looking for some took an eighth of a dry run
ROOT = Path(workflow.basedir)
SRC = ROOT / "src"
sys.path.insert(0, str(SRC))  # before an installed clipdr, which may be that of another folder
# Jobs run `python -m clipdr...` with this interpreter, with .venv's if this one can only submit jobs (.venv-slurm), or
# with that of their conda environment, which goes before it: conda puts it where the active environment stands in PATH,
# and goes to the front only if no other is active.
PYTHON = Path(sys.executable).parent if find_spec("torch") else ROOT / ".venv/bin"
os.environ.pop("CONDA_SHLVL", None)
os.environ.update(PYTHONNOUSERSITE="1", PATH=os.pathsep.join([str(PYTHON), os.environ.get("PATH", os.defpath)]))
# Not in os.environ: Snakemake takes PYTHONPATH away from jobs in conda environments. img2dataset does not fit the lock of
# all other stages: its environment is conda's, or .venv-download, which `make` installs; where it lies changes nothing of
# what is fetched, and so is no parameter of a rule.
DOWNLOADER = next((path for path in [ROOT / ".venv-download/bin/python"] if path.is_file()), "python")

if not find_spec("ruamel"):
    raise WorkflowError("ruamel.yaml is not installed beside Snakemake; run `python -m pip install ruamel.yaml`")

from clipdr import config as configuration
from clipdr.artifacts import all_of
from clipdr.errors import UserError
from clipdr.chain import captions, chunks_of, evaluation, suite_of
from clipdr.checks import check_environments
from clipdr.chunks import chunk_names
from clipdr.evaluate.kinds import modules_of
from clipdr.evaluate.tasks import folder_name, folder_of, present
from clipdr.words import has_scores, networks, slug
from clipdr.files import sha256
from clipdr.fingerprint import fingerprint
from clipdr.provenance import job
from clipdr.train import named_modules

JOB = job(ROOT)
shell.prefix("set -euo pipefail; export PYTHONPATH={SRC:q} DOWNLOADER={DOWNLOADER:q} CLIPDR_JOB={JOB:q}; ")

try:
    check_environments(ROOT)
    CONFIG = configuration.load_config(ROOT, config)
    SCALE = configuration.load_scale(ROOT, CONFIG["scale"])
    SUITE = configuration.with_suites(SCALE, ROOT, f"config/scales/{CONFIG['scale']}.yaml")[1]
    MODELS = configuration.load_models(ROOT)
    # Experiments by <paper>-<name>, and why this scale has none of the others.
    EXPERIMENTS, MISFITS = configuration.load_experiments(ROOT, CONFIG)
    # What is measured in the place of scores, by experiment: times of its runs, or bytes of a dataset.
    MEASURED = {name: one.measured for name, one in EXPERIMENTS.items() if one.measured}
    # What is counted beside them.
    WORK = {name: one.work for name, one in EXPERIMENTS.items() if one.work}
except UserError as error:
    raise WorkflowError(str(error)) from None


def tasks_of(one):
    """The suite of an experiment, without tasks that are not there if the scale skips those."""
    asked = one.scale["evaluation"]
    return present(one.suite, asked["tasks"]) if asked.get("missing") == "skip" else one.suite


def evaluations(experiment):
    """Run -> its evaluation, of an experiment; none where something else is measured."""
    one = EXPERIMENTS[experiment]
    if one.measured:
        return {}
    suite = suite_of(one.scale, MODELS, tasks_of(one))
    return {run: evaluation([run.artifact, *run.others], suite) for run in one.runs}


EVALUATIONS = {name: evaluations(name) for name in EXPERIMENTS}
# Every task that something is scored on, of the suites of the scale and of its papers.
SUITES = [SUITE, *(one.suite for one in EXPERIMENTS.values())]
TASKS_OF_ALL = {task["key"]: task for suite in SUITES for task in suite["tasks"]}
# The picture of the chain shows captions of the first dataset.
CHAIN = captions(SCALE, MODELS, next(iter(SCALE["datasets"].values())))


class Known(dict):
    """By folder below results."""

    def __missing__(self, folder):
        raise WorkflowError(f"results/{folder} is of no experiment at scale {CONFIG['scale']}; see `snakemake list`")


# What is made.
ARTIFACTS = Known(
    all_of(
        [
            CHAIN,
            *MEASURED.values(),
            *WORK.values(),
            *(made for every in EVALUATIONS.values() for made in every.values()),
        ]
    )
)
# Full-size networks: those whose parameters stand in tables, and all by the names of their files.
COUNTED = sorted({name for one in EXPERIMENTS.values() for name in networks(one.experiment, "params")})
TIMED = {name for one in EXPERIMENTS.values() for name in networks(one.experiment, "latency")}
NETWORKS = {slug(name): name for name in [*MODELS, *sorted(TIMED - MODELS.keys())]}
if clash := next((name for name in [*MODELS, *TIMED] if NETWORKS[slug(name)] != name), None):
    raise WorkflowError(
        f"networks {clash!r} and {NETWORKS[slug(clash)]!r} share the file name {slug(clash)}; rename one"
    )


def report_settings(experiment):
    """What the job of a table or figure is told: nothing that it does not print."""
    one = EXPERIMENTS[experiment]
    scale = {"name": CONFIG["scale"], "title": SCALE["title"]}
    scale |= {key: one.scale["evaluation"].get(key, False) for key in ("columns", "leave_out_chance")}
    there = tasks_of(one)["tasks"]
    absent = [task["key"] for task in one.suite["tasks"] if task not in there]
    scale |= {"absent": absent} if absent else {}
    every = EVALUATIONS[experiment]
    sizes = {entry["name"]: entry["size"] for entry in one.scale["datasets"].values()}
    runs = [
        {
            "row": run.row,
            "seed": run.seed,
            **trained_on(run, sizes),
            **({"scores": scores(every[run])} if run in every else {}),
        }
        for run in one.runs
    ]
    measured = {made.stage: measured_file(made) for made in (one.measured, one.work) if made}
    return {"experiment": one.experiment, "scale": scale, "runs": runs, **measured}


def scores(made):
    """Below results: the folders of what the jobs of an evaluation scored."""
    return [f"{made.path}/scores/{part}" for part in chunk_names(SCALE["evaluation"].get("jobs", 1))]


def trained_on(run, sizes):
    """How much a run sees, by the sizes of the datasets, and its log; nothing of a teacher, which a table only scores."""
    if run.artifact.stage != "runs":
        return {}
    training = run.settings["training"]
    return {
        "seen samples": training["steps"] * training["batch_size"],
        "dataset size": sizes[run.settings["data"]["dataset"]],
        "log": f"{run.artifact.path}/model/log.jsonl",
    }


def trained_models(wildcards):
    """The model folders of an experiment's runs, which have their logs."""
    runs = EXPERIMENTS[f"{wildcards.paper}-{wildcards.experiment}"].runs
    return sorted({f"results/{run.artifact.path}/model" for run in runs if run.artifact.stage == "runs"})


def measured_file(made):
    """Below results: what a measurement gives."""
    return f"{made.path}/{made.stage}.json"


# What each settings.json says.
SETTINGS = Known({path: made.settings for path, made in ARTIFACTS.items()})
SETTINGS |= {
    f"{CONFIG['scale']}/report/{one.paper}/{one.name}": report_settings(name) for name, one in EXPERIMENTS.items()
}


def names(stage, chosen=lambda made: True):
    """Regular expression of the artifacts of a stage, or of those of them that are chosen."""
    found = [made.name for made in ARTIFACTS.values() if made.stage == stage and chosen(made)]
    return "|".join(map(re.escape, found)) or "none"


def fetched(made):
    """Whether a pool is fetched, chunk by chunk."""
    return made.settings["kind"] == "datacomp"


# Where captioner and teachers run when they reinforce; training has a key of its own.
DEVICE = SCALE["zoo"].get("device", "cpu")
# Kind of zoo -> regular expression of its members.
ZOO = {
    kind: names("zoo", lambda made: ({"pretrained", "file"} & made.settings.keys() != set()) == (kind == "published"))
    for kind in ("trained", "published")
}


# What an artifact is called, and not the names of all: a pattern of thousands is slow to match.
NAME = r"[^/]+-[0-9a-f]{8}"


wildcard_constraints:
    pool=NAME,
    tokenizer=NAME,
    zoo=NAME,
    subset=NAME,
    captions=NAME,
    reinforced=NAME,
    views=NAME,
    rows=NAME,
    chunked=f"(captions|reinforced|rows)/{NAME}",
    chunk=r"\d+-of-\d+",
    runs=NAME,
    eval=f"([^/]+/)?{NAME}",
    costs=NAME,
    storage=NAME,
    work=NAME,
    sentences=NAME,
    embedded=NAME,
    corpora=NAME,
    told=".+",
    paper="|".join(sorted({one.paper for one in EXPERIMENTS.values()})),
    experiment="|".join(sorted({one.name for one in EXPERIMENTS.values()})),
    network="|".join(map(re.escape, NETWORKS)),


@cache  # Snakemake asks for the parameters of all ready jobs whenever it looks for jobs
def code(*modules):
    """Changes when the code that the modules run changes, not when its comments do."""
    return " ".join(fingerprint(module, ROOT) for module in modules)


@cache
def pins(environment):
    """Changes with a pin of an environment, and not with what else its file says."""
    found = re.findall(r"- (\S+==\S+)$", (ROOT / "envs" / Path(environment).name).read_text(), re.MULTILINE)
    return sha256("\n".join(sorted(found)).encode())[:12]


def as_json(settings):
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def made_from(key, file):
    """Input function: `file` in what the job's artifact is made from as `key`, or nothing without such an input.

    A rule that makes an artifact has a wildcard that is called like its stage, and perhaps one for the chunk.
    """

    def paths(wildcards):
        ((stage, name),) = [pair for pair in wildcards.items() if pair[0] != "chunk"]
        found = ARTIFACTS[f"{stage}/{name}"].inputs.get(key, [])
        found = found if isinstance(found, list) else [found]
        return [f"results/{made.path}/{file}".format_map(wildcards) for made in found]

    return paths


def chunks(path):
    """The folders of all chunks of an artifact that is made in chunks."""
    return [f"results/{path}/chunks/{name}" for name in chunk_names(chunks_of(ARTIFACTS[path]))]


def folders(paths):
    """Where the data of a run lie: a folder, or that of a manifest."""
    return [str(Path(path).parent) if path.endswith("manifest.json") else path for path in paths]


def suite(wildcards):
    """The tasks of an evaluation, and how they are read."""
    return ARTIFACTS[f"eval/{wildcards.eval}"].inputs["suite"]


def tasks(wildcards):
    """The folders of an evaluation's tasks: all of the pool's, or one by one in the folder that the scale names."""
    made = suite(wildcards)
    if "folder" not in made.settings:
        return tasks_folder(made)
    return sorted({f"{tasks_folder(made)}/{folder_of(task)}" for task in made.settings["tasks"]})


def tasks_folder(made):
    """Where the tasks lie of a suite, or those that a run is scored on on the way."""
    settings = made.settings.get("watched", made.settings)
    return settings.get("folder") or f"results/{made.inputs['pool'].path}/tasks"


def sources(wildcards):
    """What a pool is made of: the packages' content, which pools that are cut from them share, or the user's data."""
    pool = ARTIFACTS[f"pool/{wildcards.pool}"].settings
    match pool["kind"]:
        case "emoji":
            return f"results/sources/{Path(pool['packages']).name}"
        case "folder":
            return pool["source"]


def sentences_source(wildcards):
    """What sentences are taken from: a package's content, the pool, its tasks, or the user's file."""
    made = ARTIFACTS[f"sentences/{wildcards.sentences}"]
    match made.settings["kind"]:
        case "wordnet":
            return f"results/sources/{Path(made.settings['packages']).name}"
        case "captions":
            return f"results/{made.inputs['pool'].path}/shards"
        case "prompts":
            return f"results/{made.inputs['pool'].path}/tasks"
        case "file":
            return made.settings["file"]


def sentences_path(wildcards, input):
    """The same, or the pool's index."""
    of_pool = ARTIFACTS[f"sentences/{wildcards.sentences}"].settings["kind"] == "captions"
    return f"{input.source}/index.parquet" if of_pool else input.source


def pool_code(wildcards):
    """A pool depends on the code of its own kind alone."""
    kind = ARTIFACTS[f"pool/{wildcards.pool}"].settings["kind"]
    return code("clipdr.pool.folder") if kind == "folder" else code("clipdr.pool.emoji")


def watched_tasks(wildcards):
    """The folder of the tasks that a run is scored on on the way, if it is."""
    made = ARTIFACTS[f"runs/{wildcards.runs}"]
    return tasks_folder(made) if "watched" in made.settings else []


def train_code(wildcards):
    """A run depends on the code of its own objective alone."""
    return code("clipdr.train.run", *named_modules(ARTIFACTS[f"runs/{wildcards.runs}"].settings))


def evaluate_code(wildcards):
    """An evaluation depends on the code of its own kinds of tasks alone."""
    return code("clipdr.evaluate.suite", *modules_of(suite(wildcards).settings["tasks"]))


def table_code(wildcards):
    """Tables of accuracy depend on how their tasks are scored, and not on how measurements are written."""
    name = f"{wildcards.paper}-{wildcards.experiment}"
    match name in MEASURED and MEASURED[name].stage:
        case "costs":
            return code("clipdr.report.cost")
        case "storage":
            return code("clipdr.report.storage")
    return code("clipdr.report.table", *modules_of(EXPERIMENTS[name].suite["tasks"]))


def figure_code(wildcards):
    name = f"{wildcards.paper}-{wildcards.experiment}"
    return code("clipdr.report.figure", *modules_of(EXPERIMENTS[name].suite["tasks"]))


def costs_code(wildcards):
    """What a measurement of costs runs: its own code, and that of the runs."""
    timed = ARTIFACTS[f"costs/{wildcards.costs}"].settings["runs"]
    return code("clipdr.train.cost", *sorted({name for run in timed for name in named_modules(run["settings"])}))


def options(input, kinds):
    """Options of a command: what the job has as `input` of each kind, called like it."""
    return [word for kind in kinds if input[kind] for word in (f"--{kind.replace('_', '-')}", *input[kind])]


def costs_data(wildcards):
    """What each run that is timed reads, in the order of the runs."""
    inputs = ARTIFACTS[f"costs/{wildcards.costs}"].inputs
    return [f"results/{made.path}/{'arrays' if made.stage == 'views' else 'manifest.json'}" for made in inputs["data"]]


def scored(wildcards):
    """The evaluations that an experiment's table reads, or the file of what was measured for it."""
    name = f"{wildcards.paper}-{wildcards.experiment}"
    if name in MEASURED:
        return f"results/{measured_file(MEASURED[name])}"
    if EVALUATIONS[name] and not tasks_of(EXPERIMENTS[name])["tasks"]:
        return f"no task of the suite is in {TASKS}; run the target download_eval, or put tasks there"
    counted = [f"results/{measured_file(WORK[name])}"] if name in WORK else []
    return counted + sorted({f"results/{folder}" for made in EVALUATIONS[name].values() for folder in scores(made)})


def measurements(wildcards):
    """Parameters and latencies of full-size networks that an experiment's table reads."""
    experiment = EXPERIMENTS[f"{wildcards.paper}-{wildcards.experiment}"].experiment
    counts = ["results/networks/counts.json"] if networks(experiment, "params") else []
    return counts + latencies(experiment)


def latencies(experiment):
    return [f"results/networks/latency/{slug(name)}.json" for name in networks(experiment, "latency")]


def figure1_latencies(wildcards):
    if "mobileclip-table7" not in EXPERIMENTS:
        missing = "config/experiments/mobileclip/table7.yaml does not exist; figure1 draws it"
        raise WorkflowError(MISFITS.get("mobileclip-table7", missing))
    return latencies(EXPERIMENTS["mobileclip-table7"].experiment)


def network_name(wildcards):
    return NETWORKS[wildcards.network]


def network_settings(wildcards):
    """What config/models says of a network; nothing of open_clip's own."""
    return as_json(MODELS.get(network_name(wildcards)))
