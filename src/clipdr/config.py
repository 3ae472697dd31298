"""Reading everything in config/, so that a typing error is one clear line before any job starts.

The schemas say what one file may say (`clipdr.schema`), `clipdr.checks` what the files must say together. A UserError
is one line that names the file, the key and the fix. Models are read by `clipdr.model_files`.

`root` is the repository folder everywhere, so that nothing depends on the working directory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipdr.artifacts import Artifact
from clipdr.chain import suites_of
from clipdr.checkpoints import with_checkpoints, with_tasks, with_words
from clipdr.checks import check, check_checkpoints, check_once, check_packages, check_uses
from clipdr.errors import UserError, listed, nearest
from clipdr.evaluate.kinds import schemas as task_kinds
from clipdr.experiments import Run, at_scale, for_paper, measured, work
from clipdr.model_files import load_models
from clipdr.schema import defaults, kinds, load, load_yaml, validate, validate_by
from clipdr.words import merge

BARE = "mobileclip"  # the paper whose experiments may be called by their bare name
SUITE = "suite:"  # before the name of a suite, in a column of a scale: all tasks of that one


@dataclass(frozen=True)
class Planned:
    """An experiment at a scale: `scale` as its paper sees it, the suite that it names, and the table's runs.

    `measured` is what is measured instead of scores, `work` what is counted beside them, or None.
    """

    paper: str
    name: str
    experiment: dict
    scale: dict
    suite: dict
    runs: list[Run]
    measured: Artifact | None = None
    work: Artifact | None = None


def load_config(root: Path, overrides: Mapping | None = None) -> dict:
    """config/config.yaml with `overrides` (what `--config` gave) in place of its keys, checked.

    A scale may say itself which experiments are built, in place of config.yaml; `overrides` go before both.
    `experiments` may be given as one string, with commas between several names: `--config experiments=table2`. They
    come back by their full names, `<paper>-<name>`.
    """
    data = load(root, "config/config.yaml", "config")
    given = dict(overrides or {})
    if "experiments" not in given and isinstance(name := given.get("scale", data["scale"]), str):
        source = f"config/scales/{name}.yaml"
        of_scale = _with_base(root, load_yaml(Path(root) / source, source), source)
        data["experiments"] = of_scale.get("experiments", data["experiments"])
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
        validate(seen.get("mixture", {}), "mixture", f"{where}: mixture", root)
        for part, folder in (("pool", "pools"), ("zoo", "zoos")):
            check_uses(
                source, [(f"{part}.kind", seen[part]["kind"], kinds(root, folder), f"workflow/schemas/{folder}")]
            )
            validate(seen[part], f"{folder}/{seen[part]['kind']}", f"{where}: {part}", root)
        check_checkpoints(seen, where, root)
    filled = {key: {**defaults(key, root), **scale.get(key, {})} for key in ("training", "mixture")}
    return {**scale, **filled}


def _with_base(root: Path, scale: Mapping, source: str) -> dict:
    """The scale with what another one says, where it has a `base`."""
    if "base" not in scale:
        return dict(scale)
    base_source = f"config/scales/{scale['base']}.yaml"
    base = load_yaml(Path(root) / base_source, base_source)
    if "base" in base:
        raise UserError(f"{source}: base: {scale['base']} has a base itself; name one that has none")
    return merge(base, {key: value for key, value in scale.items() if key != "base"})


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
    papers, undefined = {path.parent.name for path in files.values()}, scale.get("undefined", {})
    if unknown := [name for name in undefined if name not in {*files, *papers}]:
        raise UserError(f"{scale_source}: undefined.{unknown[0]} is no experiment{nearest(unknown[0], files)}")
    if unknown := [paper for paper in scale.get("papers", {}) if paper not in papers]:
        raise UserError(
            f"{scale_source}: papers.{unknown[0]} is no folder of config/experiments{nearest(unknown[0], papers)}"
        )
    only = {"seeds": config["seeds"]} if "seeds" in config else {}
    views = {paper: with_suites(for_paper(scale, paper) | only, root, scale_source) for paper in papers}
    for key, path in files.items():
        paper, source = path.parent.name, path.relative_to(root).as_posix()
        seen, suite = views[paper]
        asked = with_words(with_checkpoints(load(root, source, "experiment"), seen), seen)
        experiment = with_seeds(with_tasks(asked, path.parent), config.get("seeds"))
        try:
            if reason := undefined.get(key, undefined.get(paper)):
                raise UserError(f"{source} is undefined at scale {config['scale']}: {reason}")
            runs = check(experiment, seen, models, suite, objectives, source, scale_source)
            made, counted = measured(path.stem, experiment, runs, seen, models), work(path.stem, experiment, runs)
            planned[key] = Planned(paper, path.stem, at_scale(experiment, seen), seen, suite, runs, made, counted)
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


def with_seeds(experiment: Mapping, number: int | None) -> dict:
    """The experiment with so many seeds: its own first ones, and if they are too few the next numbers."""
    if number is None or "seeds" not in experiment:
        return dict(experiment)
    own = experiment["seeds"]
    more = [seed for seed in range(len(own) + number) if seed not in own]
    return {**experiment, "seeds": [*own, *more][:number]}


def load_suite(root: Path, name: str) -> dict:
    """config/suites/<name>.yaml, checked: each task by the schema of its kind too, and each stands in it once.

    A suite `of` another one has that one's tasks.
    """
    source = f"config/suites/{name}.yaml"
    suite, known = load(root, source, "suite"), task_kinds()
    if "of" in suite:
        if "of" in load(root, f"config/suites/{suite['of']}.yaml", "suite"):
            raise UserError(f"{source}: of: {suite['of']} is of another suite itself; name a whole one")
        return {**suite, "tasks": _tasks_of(load_suite(root, suite["of"]), suite, source)}
    common = load_yaml(Path(root) / "workflow/schemas/suite.schema.yaml")["properties"]["tasks"]["items"]["properties"]
    for i, task in enumerate(suite["tasks"]):
        if isinstance(task, str):
            raise UserError(f"{source}: tasks[{i}] is the text {task!r}; say with `of` which suite has such a task")
        check_uses(source, [(f"tasks[{i}].kind", task["kind"], known, "src/clipdr/evaluate/kinds")])
        own = {key: value for key, value in task.items() if key not in common}
        validate_by(own, known[task["kind"]], f"{source}: tasks[{i}]")
    check_once(f"{source}: tasks", [task["key"] for task in suite["tasks"]])
    return suite


def _tasks_of(whole: Mapping, part: Mapping, source: str) -> list[dict]:
    """The tasks of a suite that another one names by their keys."""
    if own := [task["key"] for task in part["tasks"] if not isinstance(task, str)]:
        raise UserError(f"{source}: tasks: {own[0]} is a task of its own; beside `of`, keys alone may stand")
    tasks = {task["key"]: task for task in whole["tasks"]}
    check_uses(
        source, ((f"tasks[{i}]", key, tasks, f"config/suites/{part['of']}.yaml") for i, key in enumerate(part["tasks"]))
    )
    check_once(f"{source}: tasks", part["tasks"])
    return [tasks[key] for key in part["tasks"]]


def with_suites(scale: Mapping, root: Path, source: str) -> tuple[dict, dict]:
    """The scale, its columns without `suite:<name>`, which stands for all tasks of that suite; and one suite of all.

    In it each task says as `suite` where it is from.
    """
    tasks = {name: load_suite(root, name)["tasks"] for name in suites_of(scale)}
    every = [{**task, "suite": name} for name, of_suite in tasks.items() for task in of_suite]
    check_once(f"{source}: evaluation.suite: tasks", [task["key"] for task in every])
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
