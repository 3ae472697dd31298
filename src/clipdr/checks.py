"""What the files of config/ must say together: words that something defines, and numbers that fit each other.

Each file is valid by its own schema already (`clipdr.schema`). The first word that nothing defines, and the first
contradiction, is a UserError of one line that names the file, the key and the fix.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from clipdr.chain import suites_of
from clipdr.errors import UserError, listed, look_up, nearest
from clipdr.evaluate.kinds import schemas as task_kinds
from clipdr.experiments import Run, plan, training_of
from clipdr.schema import load_yaml, validate
from clipdr.words import (
    COST,
    MAIN,
    NETWORK_COLUMNS,
    SCORED,
    SIZE,
    WORK_COLUMNS,
    columns_of,
    evaluation_columns,
    has_runs,
    has_scores,
    task_and_metric,
    words_of,
)

RESERVED = ("captioner", "tokenizer")  # members of the zoo that are no teachers

# Where a word is used, the word, the words that are defined, where they are.
Use = tuple[str, str, Iterable[str], str]


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
    check_uses(scale_source, _uses_of_scale(scale, models, suite))
    if has_scores(experiment):
        columns, where = scale["evaluation"]["columns"], f"evaluation.columns of {scale_source}"
        known = [*columns, *NETWORK_COLUMNS, *WORK_COLUMNS, COST]
        check_uses(source, (("columns", column, known, where) for column in experiment["columns"]))
    check_experiment(experiment, models, source)
    _check_sizes(scale, scale_source)
    named = {json.dumps(dataset, sort_keys=True): dataset["name"] for dataset in scale["datasets"].values()}
    check_once(f"{scale_source}: datasets", list(named.values()))  # two words may stand for one subset
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
    check_once(f"{source}: rows", [row["name"] for row in experiment["rows"]])
    check_uses(source, _uses_of_experiment(experiment, models))
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
    check_uses(source, [*uses, *((f"pool.styles.{key}", icons, known, where) for key, icons in pool["styles"].items())])


def check_checkpoints(scale: Mapping, where: str, root: Path) -> None:
    """Settings have the form of those of a row, and weights come from one place."""
    words = load_yaml(Path(root) / "workflow/schemas/experiment.schema.yaml")["$defs"]["settings"]["properties"]
    for name, entry in scale.get("checkpoints", {}).items():
        path = f"checkpoints.{name}"
        check_uses(where, ((f"{path}.settings", key, words, "settings") for key in entry.get("settings", {})))
        for i, weights in enumerate(entry.get("weights", [])):
            if len({"pretrained", "file"} & weights.keys()) != 1:
                raise UserError(f"{where}: {path}.weights[{i}] needs pretrained or file; give one of the two")


def check_environments(root: Path) -> None:
    """Conda environments have the pins of their locks: so an edited lock makes again what it decides."""
    for path in sorted((Path(root) / "envs").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        lock = re.search(r"Pins are those of (\S+);", text)[1]
        locked = (Path(root) / lock).read_text(encoding="utf-8").splitlines()
        if others := [pin for pin in re.findall(r"^ +- (\S+==\S+)$", text, re.MULTILINE) if pin not in locked]:
            raise UserError(
                f"envs/{path.name}: {others[0]} is not in {lock}; run `python envs/write.py`: what runs in that "
                "environment is made again"
            )


def check_uses(source: str, uses: Iterable[Use]) -> None:
    for path, word, known, where in uses:
        if word not in known:
            hint = f"{nearest(word, known)} (known: {listed(known)})"
            raise UserError(f"{source}: {path}: {word!r} is not in {where}{hint}")


def check_once(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{what}: the name {name!r} stands twice; rename one")


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
        validate(words.get("mixture", {}), "mixture", f"{where}: mixture")
        if "init" in words and len({"row", "checkpoint"} & words["init"].keys()) != 1:
            raise UserError(f"{where}: init needs row or checkpoint; give one of the two")


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


def _uses_of_scale(scale: Mapping, models: Mapping, suite: Mapping) -> Iterator[Use]:
    zoo, evaluation = scale["zoo"], scale["evaluation"]
    for word, model in scale["models"].items():
        if model is not None:
            yield f"models.{word}", model, models, "config/models"
    for name, member in _members(zoo):
        if zoo["kind"] == "trained":
            yield f"zoo.{name}.model", member["model"], models, "config/models"
    for word, teachers in scale["teachers"].items():
        yield from ((f"teachers.{word}", teacher, zoo["teachers"], "zoo.teachers") for teacher in teachers or [])
    for word, corpus in scale.get("texts", {}).items():
        yield from ((f"texts.{word}.from", name, scale.get("sentences", {}), "sentences") for name in corpus["from"])
        if "like" in corpus:
            yield f"texts.{word}.like", corpus["like"], scale["texts"], "texts"
    tasks = {task["key"]: task for task in suite["tasks"]}
    where = " and ".join(f"config/suites/{name}.yaml" for name in suites_of(scale))
    for key, task in tasks.items():
        if "teacher" in task:
            yield f"evaluation.suite: {key}: teacher", task["teacher"], zoo["teachers"], "zoo.teachers"
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
                    task_kinds()[kind]["properties"]["main_metric"]["enum"],
                    f"the metrics of kind {kind}",
                )


def _uses_of_emoji(pool: Mapping, tasks: list[str], where: str) -> Iterator[Use]:
    for finish, design in pool["finishes"].items():
        yield f"pool.finishes.{finish}", finish, pool["vendors"], "pool.vendors"
        yield f"pool.finishes.{finish}", design, pool["vendors"], "pool.vendors"
    for style in pool["required_styles"]:
        yield "pool.required_styles", style, pool["styles"], "pool.styles"
    for style in pool["styles"]:  # the task of a style ends in its name
        yield "pool.styles", style, [key.rpartition("/")[2] for key in tasks], where


def _uses_of_experiment(experiment: Mapping, models: Mapping) -> Iterator[Use]:
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
    asked = experiment.get("correlation", {})
    for column in [*asked.get("columns", []), *([asked["with"]] if asked else [])]:
        yield "correlation", column, evaluation_columns(experiment), "the columns of accuracy"
    for i, claim in enumerate(experiment.get("comparisons", [])):
        needed = _measured_by(claim["column"])
        ours = [row["name"] for row in experiment["rows"] if set(needed) & row.keys()]
        yield from ((f"comparisons[{i}].{key}", claim[key], rows, "rows") for key in ("better", "than"))
        judged = [column for column in columns if column not in WORK_COLUMNS]
        yield f"comparisons[{i}].column", claim["column"], judged, "columns"
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
            check_uses(source, [use])


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
            if column not in (*NETWORK_COLUMNS, *WORK_COLUMNS, COST, SIZE) and value is not None and value > 100:
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
    _check_nodes(scale, source)
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


def _check_nodes(scale: Mapping, source: str) -> None:
    """Only a training has several nodes, and each of them as many of its processes."""
    per_node = {
        rule: wanted["processes_per_node"]
        for rule, wanted in scale.get("resources", {}).items()
        if "processes_per_node" in wanted
    }
    for rule in per_node.keys() - {"train"}:
        raise UserError(f"{source}: resources.{rule}.processes_per_node: only train has processes; take it out")
    of_recipes = {
        f"recipes.{name}": recipe["processes"]
        for name, recipe in scale.get("recipes", {}).items()
        if "processes" in recipe
    }
    for path, processes in ({"training": scale["training"]["processes"]} | of_recipes).items():
        if per_node and processes > per_node["train"] and processes % per_node["train"]:
            raise UserError(
                f"{source}: {path}.processes is {processes}; it must be a multiple of "
                f"resources.train.processes_per_node ({per_node['train']}), or at most that"
            )


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


def _members(zoo: Mapping) -> list[tuple[str, Mapping]]:
    return [(f"teachers.{name}", member) for name, member in zoo["teachers"].items()] + [
        ("captioner", zoo["captioner"])
    ]
