"""Reading and checking everything in config/, so that a typing error is one clear line before any job starts.

The schemas say what one file may say (`clipdr.schema`), `check` what the files must say together. A UserError is one
line that names the file, the key and the fix. Models are read by `clipdr.model_files`.

`root` is the repository folder everywhere, so that nothing depends on the working directory.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipdr.artifacts import Artifact
from clipdr.chain import suites_of
from clipdr.checkpoints import with_checkpoints, with_tasks
from clipdr.errors import UserError, listed, look_up, nearest
from clipdr.experiments import Run, at_scale, for_paper, measured, plan, training_of
from clipdr.model_files import load_models
from clipdr.schema import REPOSITORY, defaults, load, load_yaml, validate
from clipdr.words import (
    COST,
    MAIN,
    NETWORK_COLUMNS,
    SCORED,
    SIZE,
    columns_of,
    evaluation_columns,
    has_runs,
    has_scores,
    merge,
    task_and_metric,
    words_of,
)

BARE = "mobileclip"  # the paper whose experiments may be called by their bare name
SUITE = "suite:"  # before the name of a suite, in a column of a scale: all tasks of that one
RESERVED = ("captioner", "tokenizer")  # members of the zoo that are no teachers


@dataclass(frozen=True)
class Planned:
    """An experiment at a scale: `scale` as its paper sees it, the suite that it names, and the table's runs.

    `measured` is what is measured instead of scores, or None.
    """

    paper: str
    name: str
    experiment: dict
    scale: dict
    suite: dict
    runs: list[Run]
    measured: Artifact | None = None


def load_config(root: Path, overrides: Mapping | None = None) -> dict:
    """config/config.yaml with `overrides` (what `--config` gave) in place of its keys, checked.

    `experiments` may be given as one string, with commas between several names: `--config experiments=table2`. They
    come back by their full names, `<paper>-<name>`.
    """
    data = load(root, "config/config.yaml", "config")
    given = dict(overrides or {})
    if isinstance(given.get("experiments"), str):
        given["experiments"] = [name.strip() for name in given["experiments"].split(",")]
    merged = {**data, **given}
    validate(merged, "config", "--config", root)  # the file itself is right, so what is wrong was given
    known = experiment_files(root)
    return {**merged, "experiments": [full_name(name, known) for name in merged["experiments"]]}


def experiment_files(root: Path) -> dict[str, Path]:
    """`<paper>-<name>` -> the experiment's file, of all papers."""
    files = sorted((Path(root) / "config/experiments").glob("*/*.yaml"))
    return {f"{path.parent.name}-{path.stem}": path for path in files}


def full_name(name: str, known: Iterable[str]) -> str:
    """`<paper>-<name>` of an experiment that may be called by its bare name. Raises UserError if there is none."""
    known = list(known)
    for candidate in (name, f"{BARE}-{name}"):
        if candidate in known:
            return candidate
    bare = [full.removeprefix(f"{BARE}-") for full in known]
    raise UserError(f"no experiment is called {name!r}{nearest(name, [*bare, *known])} (known: {listed(bare)})")


def load_scale(root: Path, name: str) -> dict:
    """config/scales/<name>.yaml, checked against its schema, also as each paper sees it."""
    source = f"config/scales/{name}.yaml"
    scale = _with_base(root, load_yaml(Path(root) / source, source), source)
    validate(scale, "scale", source, root)
    for paper in ["", *scale.get("papers", {})]:
        where = f"{source}: papers.{paper}" if paper else source
        seen = for_paper(scale, paper)
        validate(seen, "scale", where, root)
        validate(seen["training"], "training", f"{where}: training", root)
        for part, folder in (("pool", "pools"), ("zoo", "zoos")):
            _check_uses(
                source, [(f"{part}.kind", seen[part]["kind"], kinds(root, folder), f"workflow/schemas/{folder}")]
            )
            validate(seen[part], f"{folder}/{seen[part]['kind']}", f"{where}: {part}", root)
        _check_checkpoints(seen, where, root)
    return {**scale, "training": {**defaults("training", root), **scale["training"]}}


def _with_base(root: Path, scale: Mapping, source: str) -> dict:
    """The scale with what another one says, where it has a `base`."""
    if "base" not in scale:
        return dict(scale)
    base_source = f"config/scales/{scale['base']}.yaml"
    base = load_yaml(Path(root) / base_source, base_source)
    if "base" in base:
        raise UserError(f"{source}: base: {scale['base']} has a base itself; name one that has none")
    return merge(base, {key: value for key, value in scale.items() if key != "base"})


def kinds(root: Path, folder: str) -> dict[str, Path]:
    """Name -> schema of what may be chosen by its name: workflow/schemas/{objectives,pools,zoos}/<name>.schema.yaml."""
    files = sorted((Path(root) / "workflow/schemas" / folder).glob("*.schema.yaml"))
    return {path.name.removesuffix(".schema.yaml"): path for path in files}


def load_objectives(root: Path) -> dict[str, dict]:
    """Name -> schema of each objective."""
    return {name: load_yaml(path) for name, path in kinds(root, "objectives").items()}


def load_experiments(root: Path, config: Mapping) -> tuple[dict[str, Planned], dict[str, str]]:
    """The experiments that fit the scale of `config`, by their full names, and why the others do not.

    An experiment that `config` does not name may use words of another scale: it is an error only when asked for.

    Raises UserError for a file that is wrong by itself, and for an experiment that `config` names and that does not fit
    the scale.
    """
    scale, models, objectives = load_scale(root, config["scale"]), load_models(root), load_objectives(root)
    planned, misfits = {}, {}
    scale_source = f"config/scales/{config['scale']}.yaml"
    files = experiment_files(root)
    if unknown := [name for name in scale.get("undefined", {}) if name not in files]:
        raise UserError(f"{scale_source}: undefined.{unknown[0]} is no experiment{nearest(unknown[0], files)}")
    papers = {path.parent.name for path in files.values()}
    if unknown := [paper for paper in scale.get("papers", {}) if paper not in papers]:
        raise UserError(
            f"{scale_source}: papers.{unknown[0]} is no folder of config/experiments{nearest(unknown[0], papers)}"
        )
    views = {paper: with_suites(for_paper(scale, paper), root, scale_source) for paper in papers}
    for key, path in files.items():
        paper, source = path.parent.name, path.relative_to(root).as_posix()
        seen, suite = views[paper]
        experiment = with_tasks(with_checkpoints(load(root, source, "experiment"), seen), path.parent)
        try:
            if key in scale.get("undefined", {}):
                raise UserError(f"{source} is undefined at scale {config['scale']}: {scale['undefined'][key]}")
            runs = check(experiment, seen, models, suite, objectives, source, scale_source)
            made = measured(path.stem, experiment, runs, seen, models)
            planned[key] = Planned(paper, path.stem, at_scale(experiment, seen), seen, suite, runs, made)
        except UserError as error:
            if key in config["experiments"]:
                raise
            misfits[key] = str(error)
    if planned and scale["pool"]["kind"] == "emoji":
        check_packages(root, scale, scale_source)
    if planned and scale["pool"]["kind"] == "folder" and not (Path(root) / scale["pool"]["source"]).exists():
        raise UserError(
            f"{scale_source}: pool.source: {scale['pool']['source']} does not exist; name a table of images and "
            "captions, or a folder of WebDataset shards"
        )
    return planned, misfits


def load_suite(root: Path, name: str) -> dict:
    """config/suites/<name>.yaml, checked: each task by the schema of its kind too, and each stands in it once."""
    source = f"config/suites/{name}.yaml"
    suite, known = load(root, source, "suite"), kinds(root, "tasks")
    common = load_yaml(Path(root) / "workflow/schemas/suite.schema.yaml")["properties"]["tasks"]["items"]["properties"]
    for i, task in enumerate(suite["tasks"]):
        _check_uses(source, [(f"tasks[{i}].kind", task["kind"], known, "workflow/schemas/tasks")])
        own = {key: value for key, value in task.items() if key not in common}
        validate(own, f"tasks/{task['kind']}", f"{source}: tasks[{i}]", root)
    _once(f"{source}: tasks", [task["key"] for task in suite["tasks"]])
    return suite


def with_suites(scale: Mapping, root: Path, source: str) -> tuple[dict, dict]:
    """The scale, its columns without `suite:<name>`, which stands for all tasks of that suite; and one suite of all.

    In it each task says as `suite` where it is from.
    """
    tasks = {name: load_suite(root, name)["tasks"] for name in suites_of(scale)}
    every = [{**task, "suite": name} for name, of_suite in tasks.items() for task in of_suite]
    _once(f"{source}: evaluation.suite: tasks", [task["key"] for task in every])
    keys = {f"{SUITE}{name}": [task["key"] for task in of_suite] for name, of_suite in tasks.items()}
    columns = {
        column: [key for word in words for key in keys.get(word, [word])]
        for column, words in scale["evaluation"]["columns"].items()
    }
    asked = {**scale["evaluation"], "columns": columns}
    if "evaluate_every" in asked:
        watched = asked["evaluate_every"]
        asked["evaluate_every"] = {**watched, "tasks": load_suite(root, watched["suite"])["tasks"]}
    return {**scale, "evaluation": asked}, {"tasks": every}


def metrics_of(root: Path, kind: str) -> list[str]:
    """The metrics of a kind of task, any of which may stand for it."""
    return load_yaml(kinds(root, "tasks")[kind])["properties"]["main_metric"]["enum"]


def listing(planned: Mapping[str, Planned], misfits: Mapping[str, str]) -> str:
    """What `snakemake list` prints: every experiment with its title and runs, or why this scale does not have it."""
    lines = []
    for key in sorted([*planned, *misfits]):
        if key in planned:
            runs = len({run.name for run in planned[key].runs if run.artifact.stage == "runs"})
            timed = ", timed" if "cost" in planned[key].experiment else ""
            what = planned[key].experiment["title"] + (f" ({runs} runs{timed})" if runs else "")
        else:
            what = f"not at this scale: {misfits[key]}"
        lines.append(f"{key:24} {what}")
    return "\n".join(lines)


def check(
    experiment: Mapping,
    scale: Mapping,
    models: Mapping,
    suite: Mapping,
    objectives: Mapping,
    source: str,
    scale_source: str,
) -> list[Run]:
    """What an experiment, a scale, the models and the suite must say together; each by itself is valid already.

    `scale` is as the experiment's paper sees it; `source` and `scale_source` are what errors call the two files.
    Returns the experiment's runs. Raises UserError, one line, at the first word that nothing defines and the first
    contradiction.
    """
    _check_uses(scale_source, _uses_of_scale(scale, models, suite))
    if has_scores(experiment):
        columns, where = scale["evaluation"]["columns"], f"evaluation.columns of {scale_source}"
        known = [*columns, *NETWORK_COLUMNS, COST]
        _check_uses(source, (("columns", column, known, where) for column in experiment["columns"]))
    check_experiment(experiment, models, source)
    _check_sizes(scale, scale_source)
    named = {json.dumps(dataset, sort_keys=True): dataset["name"] for dataset in scale["datasets"].values()}
    _once(f"{scale_source}: datasets", list(named.values()))  # two words may stand for one subset
    _check_settings(experiment, scale, objectives, source)
    try:
        return plan(experiment, scale, models, objectives)
    except UserError as error:
        raise UserError(f"{source} with {scale_source}: {error}") from None


def check_experiment(experiment: Mapping, models: Mapping, source: str) -> None:
    """The part of `check` that needs no scale: what the words of an experiment say of each other, and its networks.

    A network may be open_clip's, and asking open_clip takes seconds. So a name with `:` or `/`, which no model of
    open_clip has, must stand in config/models (but for `open_clip:`); others are left to the job that measures.
    """
    _once(f"{source}: rows", [row["name"] for row in experiment["rows"]])
    _check_uses(source, _uses_of_experiment(experiment, models))
    _check_columns(experiment, source)
    _check_rows(experiment, source)
    _check_storage(experiment, source)


def check_packages(root: Path, scale: Mapping, source: str) -> None:
    """Every icon set of the pool is in the package.json that pins them."""
    pool = scale["pool"]
    path = Path(root) / pool["packages"] / "package.json"
    try:
        packages = json.loads(path.read_text(encoding="utf-8"))["dependencies"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{source}: pool.packages: {path} has no dependencies ({error!r}); name such a folder"
        ) from None
    known = [name.removeprefix("@iconify-json/") for name in packages]
    where = f"{pool['packages']}/package.json"
    uses = [("pool.vendors", vendor, known, where) for vendor in pool["vendors"]]
    _check_uses(
        source, [*uses, *((f"pool.styles.{key}", icons, known, where) for key, icons in pool["styles"].items())]
    )


def _check_settings(experiment: Mapping, scale: Mapping, objectives: Mapping, source: str) -> None:
    """The merged settings of each row: its objective by that one's schema, its training by the recipe's."""
    for row in experiment["rows"]:
        if "settings" not in row:
            continue
        words, where = words_of(experiment, row), f"{source}: row {row['name']!r}"
        name = words.get("objective", {}).get("name")
        if name in objectives:  # else the plan says what is missing
            validate(words["objective"], f"objectives/{name}", f"{where}: objective")
        if words.get("recipe") in (None, *scale.get("recipes", {})):
            training = training_of(words, scale)
            validate(training, "training", f"{where}: training")
            _check_recipe(training, f"{where}: training")


def _check_recipe(training: Mapping, where: str) -> None:
    for key, limit in (("warmup", "steps"), ("min_lr", "lr")):
        if training[key] > training[limit]:
            raise UserError(f"{where}.{key} is {training[key]}; it must be at most {limit} ({training[limit]})")
    if training["warmup"] + training["constant"] > training["steps"]:
        rest = training["steps"] - training["warmup"]
        raise UserError(f"{where}.constant is {training['constant']}; after the warm-up at most {rest} steps are left")
    if training["channels_last"] and training["device"] == "cpu":
        raise UserError(
            f"{where}.channels_last is true with device cpu, where torch 2.14 corrupts memory in the backward pass of "
            "FastViT and MCi; set it to false"
        )
    if training["batch_size"] % training["processes"]:
        raise UserError(
            f"{where}.batch_size is {training['batch_size']}; it must be a multiple of processes "
            f"({training['processes']})"
        )


_Use = tuple[str, str, Iterable[str], str]  # where a word is used, the word, the words that are defined, where they are


def _check_uses(source: str, uses: Iterable[_Use]) -> None:
    for path, word, known, where in uses:
        if word not in known:
            hint = f"{nearest(word, known)} (known: {listed(known)})"
            raise UserError(f"{source}: {path}: {word!r} is not in {where}{hint}")


def _uses_of_scale(scale: Mapping, models: Mapping, suite: Mapping) -> Iterator[_Use]:
    zoo, evaluation = scale["zoo"], scale["evaluation"]
    for word, model in scale["models"].items():
        yield f"models.{word}", model, models, "config/models"
    for name, member in _members(zoo):
        if zoo["kind"] == "trained":
            yield f"zoo.{name}.model", member["model"], models, "config/models"
    for word, teachers in scale["teachers"].items():
        yield from ((f"teachers.{word}", teacher, zoo["teachers"], "zoo.teachers") for teacher in teachers)
    tasks = {task["key"]: task for task in suite["tasks"]}
    where = " and ".join(f"config/suites/{name}.yaml" for name in suites_of(scale))
    if scale["pool"]["kind"] == "emoji":
        yield from _uses_of_emoji(scale["pool"], list(tasks), where)
    for column, words in evaluation["columns"].items():
        for key, metric in map(task_and_metric, words):
            yield f"evaluation.columns.{column}", key, tasks, where
            if key in tasks and metric != MAIN:
                kind = tasks[key]["kind"]
                yield (
                    f"evaluation.columns.{column}",
                    metric,
                    metrics_of(REPOSITORY, kind),
                    f"the metrics of kind {kind}",
                )


def _uses_of_emoji(pool: Mapping, tasks: list[str], where: str) -> Iterator[_Use]:
    for finish, design in pool["finishes"].items():
        yield f"pool.finishes.{finish}", finish, pool["vendors"], "pool.vendors"
        yield f"pool.finishes.{finish}", design, pool["vendors"], "pool.vendors"
    for style in pool["required_styles"]:
        yield "pool.required_styles", style, pool["styles"], "pool.styles"
    for style in pool["styles"]:  # the task of a style ends in its name
        yield "pool.styles", style, [key.rpartition("/")[2] for key in tasks], where


def _uses_of_experiment(experiment: Mapping, models: Mapping) -> Iterator[_Use]:
    columns, rows = experiment["columns"], [row["name"] for row in experiment["rows"]]
    for column in evaluation_columns(experiment):
        if column.lower().startswith(("params", "latency")):  # else a misspelt one would count as an accuracy
            yield "columns", column, NETWORK_COLUMNS, "the network columns"
    for i, row in enumerate(experiment["rows"]):
        if "point" in row and "curve" in experiment:
            yield f"rows[{i}].point.series", row["point"]["series"], experiment["curve"]["series"], "curve.series"
        yield from ((f"rows[{i}].published", column, columns, "columns") for column in row.get("published", {}))
        network = row.get("network", "")
        if set(network) & set(":/") and not network.startswith("open_clip:"):
            yield f"rows[{i}].network", network, models, "config/models"
    for i, claim in enumerate(experiment.get("comparisons", [])):
        needed = _measured_by(claim["column"])
        ours = [row["name"] for row in experiment["rows"] if set(needed) & row.keys()]
        yield from ((f"comparisons[{i}].{key}", claim[key], rows, "rows") for key in ("better", "than"))
        yield f"comparisons[{i}].column", claim["column"], columns, "columns"
        yield from (
            (f"comparisons[{i}].{key}", claim[key], ours, f"the rows with {needed[0]}") for key in ("better", "than")
        )


def _measured_by(column: str) -> tuple[str, ...]:
    """The keys of a row of which one makes it have a value of ours in a column."""
    return ("network",) if column in NETWORK_COLUMNS else SCORED


def _check_columns(experiment: Mapping, source: str) -> None:
    """Every column has something to show, and what it needs."""
    rows = experiment["rows"]
    published = {column for row in rows for column, value in row.get("published", {}).items() if value is not None}
    for column in experiment["columns"]:
        needed = _measured_by(column)
        if column not in published and not any(set(needed) & row.keys() for row in rows):
            raise UserError(
                f"{source}: columns: {column!r} would be empty; give a row {needed[0]} or a published value"
            )
    points = [row["name"] for row in rows if "point" in row]
    if "curve" in experiment and len(points) < 2:
        raise UserError(f"{source}: curve: {len(points)} rows have a point; give at least two")
    if points and "curve" not in experiment:
        raise UserError(f"{source}: rows: {points[0]!r} has a point, but there is no curve; add it")
    latencies = [column for column, (quantity, _) in NETWORK_COLUMNS.items() if quantity == "latency"]
    if published & set(latencies) and "latency_device" not in experiment:
        raise UserError(f"{source}: latency_device is missing; say on what device the paper measured its latencies")
    if has_runs(experiment) and "seeds" not in experiment:
        raise UserError(f"{source}: seeds is missing; add it, because there are rows with settings")
    for key, column in (("cost", COST), ("storage", SIZE)):
        given = key in experiment
        if given != (column in experiment["columns"]) or (given and experiment["columns"] != [column]):
            raise UserError(
                f"{source}: {key} and columns: [{column}] go together; give both, and no other column, or neither"
            )
    if has_scores(experiment) and "cost" not in experiment and not evaluation_columns(experiment):
        raise UserError(f"{source}: columns has no accuracy, but there are rows with settings; add one or remove those")


def _check_storage(experiment: Mapping, source: str) -> None:
    """Rows of a table of storage store something, and stand on a row with nothing but the dataset itself."""
    bare = [row["name"] for row in experiment["rows"] if "on" not in row.get("stores", {})]
    for i, row in enumerate(experiment["rows"]):
        if ("stores" in row) != ("storage" in experiment):
            raise UserError(f"{source}: rows[{i}]: rows of a table with storage, and no others, have stores")
        if "on" in row.get("stores", {}):
            use = (f"rows[{i}].stores.on", row["stores"]["on"], bare, "the rows without reinforcements")
            _check_uses(source, [use])


def _check_rows(experiment: Mapping, source: str) -> None:
    """Published percentages are at most 100, and a label does not take the name of another column of the table.

    A row is of one kind.
    """
    for i, row in enumerate(experiment["rows"]):
        if len(both := sorted({"stores", *SCORED} & row.keys())) > 1:
            raise UserError(f"{source}: rows[{i}] has {both[0]} and {both[1]}; take one out")
    settings = {name for row in experiment["rows"] if "settings" in row for name in columns_of(row["settings"])}
    taken = {"row", "network", "seeds", *settings, *experiment["columns"]}
    for i, row in enumerate(experiment["rows"]):
        for column, value in row.get("published", {}).items():
            if column not in (*NETWORK_COLUMNS, COST, SIZE) and value is not None and value > 100:
                raise UserError(f"{source}: rows[{i}].published.{column} is {value}; it must be at most 100 percent")
        for label in row.get("labels", {}):
            if label in taken:
                raise UserError(f"{source}: rows[{i}].labels.{label}: the table has such a column; rename the label")


def _check_sizes(scale: Mapping, source: str) -> None:
    """Numbers and names that must fit each other."""
    _check_recipe(scale["training"], f"{source}: training")
    for name in RESERVED:
        if name in scale["zoo"]["teachers"]:
            raise UserError(f"{source}: zoo.teachers.{name}: a teacher cannot have this name; rename it")
    if scale["pool"]["kind"] == "emoji":
        _check_emoji(scale, source)
    if "reinforcements" in scale["pool"]:
        _check_published(scale, source)
    crops = [(f"augmentations.{name}", entry) for name, entry in scale["augmentations"].items()]
    members = [("zoo", scale["zoo"]), *((f"zoo.{name}", member) for name, member in _members(scale["zoo"]))]
    zoo = [(f"{path}.augmentation", entry["augmentation"]) for path, entry in members if "augmentation" in entry]
    for path, entry in [*crops, *zoo]:
        low, high = entry["crop_scale"]
        if low > high:
            raise UserError(f"{source}: {path}.crop_scale is [{low}, {high}]; write the smaller number first")


def _check_emoji(scale: Mapping, source: str) -> None:
    """Vendors enough to hold some out, none trained on and unseen at once, and no subset larger than the pool."""
    pool = scale["pool"]
    vendors = len({pool["finishes"].get(vendor, vendor) for vendor in pool["vendors"]})
    held_out = sum(pool["held_out"].values())
    if not held_out < pool["min_vendors"] <= vendors:
        raise UserError(
            f"{source}: pool.min_vendors is {pool['min_vendors']}; it must be more than those held out ({held_out}) "
            f"and at most the number of vendors ({vendors})"
        )
    for style, icons in pool["styles"].items():
        if icons in pool["vendors"]:
            raise UserError(
                f"{source}: pool.styles.{style} is {icons!r}, a training vendor; take it out of one of them"
            )
    largest = pool["concepts"] * (len(pool["vendors"]) - held_out)
    for word, dataset in scale["datasets"].items():
        if dataset["size"] > largest:
            raise UserError(
                f"{source}: datasets.{word}.size is {dataset['size']}; {pool['concepts']} concepts by "
                f"{len(pool['vendors']) - held_out} vendors make at most {largest} pairs"
            )


def _check_published(scale: Mapping, source: str) -> None:
    """What is published has names that the scale knows."""
    pool, zoo = scale["pool"], scale["zoo"]["teachers"]
    look_up(f"{source}: pool.augmentation", pool["augmentation"], scale["augmentations"], "augmentations")
    if sorted(zoo) != sorted(names := [teacher["name"] for teacher in pool["teachers"]]):
        raise UserError(f"{source}: pool.teachers are {listed(names)}, but the zoo has {listed(zoo)}; name the same")


def _check_checkpoints(scale: Mapping, where: str, root: Path) -> None:
    """Settings have the form of those of a row, and weights come from one place."""
    words = load_yaml(Path(root) / "workflow/schemas/experiment.schema.yaml")["$defs"]["settings"]["properties"]
    for name, entry in scale.get("checkpoints", {}).items():
        path = f"checkpoints.{name}"
        _check_uses(where, ((f"{path}.settings", key, words, "settings") for key in entry.get("settings", {})))
        for i, weights in enumerate(entry.get("weights", [])):
            if len({"pretrained", "file"} & weights.keys()) != 1:
                raise UserError(f"{where}: {path}.weights[{i}] needs pretrained or file; give one of the two")


def _members(zoo: Mapping) -> list[tuple[str, Mapping]]:
    return [(f"teachers.{name}", member) for name, member in zoo["teachers"].items()] + [
        ("captioner", zoo["captioner"])
    ]


def _once(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{what}: the name {name!r} stands twice; rename one")
