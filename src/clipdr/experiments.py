"""From an experiment and a scale to the runs that have to be trained: pure functions, no files, no torch.

An experiment speaks its paper's words, a scale defines them. Here each row and seed becomes one `Run` whose settings
have no word left to look up. Decided here:

* A run says `model`, `data`, `objective`, `training`, `seed`, with `init` where its weights start, with `mixture` what
  the losses of its experts weigh, and with `online` what models are asked at every step. What an objective may say, and
  which of its keys are words of the scale, is the business of its own schema.
* A run is an artifact, named after its settings and all that its data are made from (`clipdr.chain`): two rows, tables
  or scales with equal ones share one run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clipdr import chain, corpora
from clipdr.artifacts import Artifact, artifact
from clipdr.checkpoints import weights_of
from clipdr.errors import UserError, listed, look_up, nearest
from clipdr.mixtures import KEY, LOSSES, TOWERS, check_mixture, with_mixture
from clipdr.words import NETWORK_COLUMNS, WORK_COLUMNS, asks_for_work, merge, slug, words_of

CAPTIONS = ("real", "syn", "real-or-syn")
ONLINE = ("captions", "teachers")
HOW_TO_START = ("noise", "renewed", "optimizer")  # of weights that are not random
OPERATIONS = ("num_ops", "magnitude", "ops", "flip", "erase")  # of an augmentation, all that is drawn beside the crop


@dataclass(frozen=True)
class Run:
    """One training run that a table asks for, and where: in which row, with which seed.

    In a row of the zoo or of published weights it is that model instead, with `others` whose embeddings are joined with
    its own.
    """

    row: str
    seed: int
    artifact: Artifact
    others: tuple[Artifact, ...] = ()

    @property
    def name(self) -> str:
        """Of the artifact; unique to its settings."""
        return self.artifact.name

    @property
    def settings(self) -> dict:
        """JSON-able and complete: model, data, objective, training, seed, and init if it starts from another run."""
        return self.artifact.settings


def plan(experiment: Mapping, scale: Mapping, models: Mapping[str, dict], objectives: Mapping[str, dict]) -> list[Run]:
    """The runs of an experiment at a scale, row by row, and seed by seed within a row.

    `experiment` and `scale` have the form of workflow/schemas/{experiment,scale}.schema.yaml; `models` maps the names
    of config/models to their contents, `objectives` those of workflow/schemas/objectives to their schemas. A scale's
    `seeds` limits the runs to the experiment's first seeds. A row without settings is not trained.

    Raises UserError (without a file name) for a word that the scale does not define, a setting that is missing, and an
    `init` that leads to no row, to another model, or back to itself.
    """
    words = {row["name"]: words_of(experiment, row) for row in experiment["rows"] if "settings" in row}
    made: dict[tuple[str, int], Artifact] = {}

    def run(row: str, seed: int, waiting: tuple[str, ...] = ()) -> Artifact:
        if row in waiting:
            raise UserError(f"init: {' starts from '.join([*waiting, row])}; break the circle")
        if (row, seed) not in made:
            start = words[row].get("init", {})
            init = run(_init_row(row, start, words), seed, (*waiting, row)) if "row" in start else None
            try:
                if "checkpoint" in start:
                    init = _checkpoint(start["checkpoint"], seed, scale, models, objectives)
                made[row, seed] = _run({**words[row], "seed": seed}, init, scale, models, objectives)
            except UserError as error:
                raise UserError(f"row {row!r}: {error}") from None
        return made[row, seed]

    trained = [Run(row, seed, run(row, seed)) for row in words for seed in experiment["seeds"][: scale.get("seeds")]]
    return trained + [_ready(row, scale, models) for row in experiment["rows"] if {"zoo", "weights"} & row.keys()]


def _ready(row: Mapping, scale: Mapping, models: Mapping[str, dict]) -> Run:
    """A row that is scored and not trained for the table: of the zoo, or of published weights."""
    if "weights" in row:
        first, *others = (weights_of(entry, models) for entry in row["weights"])
    else:
        names = look_up(f"row {row['name']!r}: zoo", row["zoo"], scale["teachers"], "teachers")
        first, *others = (chain.member(name, scale, models) for name in names)
    return Run(row["name"], 0, first, tuple(others))


def _checkpoint(name: str, seed: int, scale: Mapping, models: Mapping, objectives: Mapping) -> Artifact:
    """The one model that stands for a published one at a scale."""
    entry = look_up("init.checkpoint", name, scale.get("checkpoints", {}), "checkpoints")
    if "settings" in entry:
        return _run({**entry["settings"], "seed": seed}, None, scale, models, objectives)
    found = entry["weights"] if "weights" in entry else look_up("zoo", entry["zoo"], scale["teachers"], "teachers")
    if len(found) > 1:
        raise UserError(f"init.checkpoint: {name!r} stands for {len(found)} models together; name one model")
    return weights_of(found[0], models) if "weights" in entry else chain.member(found[0], scale, models)


def training_of(words: Mapping, scale: Mapping) -> dict:
    """The recipe of a row: the scale's, changed by the word `recipe`, then by what the row says itself."""
    changes = words.get("training", {})
    if "recipe" in words:
        changes = merge(look_up("recipe", words["recipe"], scale.get("recipes", {}), "recipes"), changes)
    return merge(scale["training"], changes)


def for_paper(scale: Mapping, paper: str) -> dict:
    """The scale as an experiment of `paper` sees it: what `papers` says of that one in place of the rest."""
    common = {key: value for key, value in scale.items() if key != "papers"}
    return merge(common, scale.get("papers", {}).get(paper, {}))


def at_scale(experiment: Mapping, scale: Mapping) -> dict:
    """The experiment without the columns that the scale defines as none, and without what is claimed of them."""
    words = scale["evaluation"]["columns"]
    counted = (*NETWORK_COLUMNS, *WORK_COLUMNS)
    left = [column for column in experiment["columns"] if column in counted or words.get(column, [0])]
    claims = [claim for claim in experiment.get("comparisons", []) if claim["column"] in left]
    return {**experiment, "columns": left, "comparisons": claims}


def measured(
    name: str, experiment: Mapping, runs: list[Run], scale: Mapping, models: Mapping[str, dict]
) -> Artifact | None:
    """What a table has in the place of scores: the times of its runs, or the bytes of what a dataset stores."""
    if "cost" in experiment:
        return costs(name, experiment, runs)
    if "storage" in experiment:
        return storage(name, experiment, scale, models)
    return None


def storage(name: str, experiment: Mapping, scale: Mapping, models: Mapping[str, dict]) -> Artifact:
    """The bytes of what each row stores, measured on one reinforced dataset."""
    asked = experiment["storage"]
    dataset = look_up("storage.dataset", asked["dataset"], scale["datasets"], "datasets")
    word = asked["augmentation"]
    entry = look_up("storage.augmentation", word, scale["augmentations"], "augmentations")
    augmentation = {key: value for key, value in entry.items() if key != "fresh"}
    rows = [{"row": row["name"], "stores": row["stores"]} for row in experiment["rows"]]
    reinforced = chain.reinforced(scale, models, dataset, word, augmentation, "all")
    return artifact("storage", name, {"widths": asked["widths"], "rows": rows}, reinforced=reinforced)


def costs(name: str, experiment: Mapping, runs: list[Run]) -> Artifact:
    """What a step of each row of an experiment costs, measured by one job on the runs of the first seed.

    Its inputs are of all runs together: `data` one by one, tokenizer, teachers and captioner once each.
    """
    first = [run for run in runs if run.seed == runs[0].seed]
    settings = {**experiment["cost"], "runs": [{"row": run.row, "settings": run.settings} for run in first]}
    inputs = {"data": [run.artifact.inputs.get("views") or run.artifact.inputs["rows"] for run in first]}
    for key in ("tokenizer", "teachers", "captioner"):
        found = [run.artifact.inputs[key] for run in first if key in run.artifact.inputs]
        if found and found != [found[0]] * len(found):
            raise UserError(f"cost: rows have {key} of different kinds; ask the same in all rows")
        inputs |= {key: found[0]} if found else {}
    return artifact("costs", name, settings, **inputs)


def work(name: str, experiment: Mapping, runs: list[Run]) -> Artifact | None:
    """What the trained rows of an experiment have to compute, counted by one job, if the table shows it."""
    if not asks_for_work(experiment):
        return None
    first = {run.row: run.settings for run in reversed(runs) if run.artifact.stage == "runs"}
    rows = [
        {"row": row, "config": settings["model"]["config"], "texts": len(settings["data"]["captions"])}
        for row, settings in reversed(first.items())
    ]
    return artifact("work", name, {"rows": rows})


def _run(words: Mapping, init: Artifact | None, scale: Mapping, models: Mapping, objectives: Mapping) -> Artifact:
    kinds = "data.texts" if "texts" in words.get("data", {}) else "data.captions"
    for path in ("model", "objective.name", "data.dataset", "data.augmentation", kinds):
        _check_present(words, path)
    model = look_up("model", words["model"], scale["models"], "models")
    config = dense = look_up("model", model, models, "config/models")
    mixture = mixture_of(words, scale)
    if mixture:
        config = with_mixture(dense, mixture)
    data = words["data"]
    dataset = look_up("data.dataset", data["dataset"], scale["datasets"], "datasets")
    look_up("data.augmentation", data["augmentation"], scale["augmentations"], "augmentations")
    first = _first(data, scale)
    settings = {
        "model": {"name": model, "config": config},
        "data": {"dataset": dataset["name"], "augmentation": data["augmentation"], **_texts(data)}
        | first
        | _student(data, scale),
        "objective": _objective(words["objective"], scale, objectives),
        "training": training_of(words, scale),
        "seed": words["seed"],
    }
    if mixture:
        settings["mixture"] = {key: mixture[key] for key in LOSSES}
    inputs = {}
    if init is not None:
        _check_init(words["init"], init, model, [dense, config])
        how = {key: words["init"][key] for key in HOW_TO_START if words["init"].get(key)}
        settings["init"], inputs["init"] = {"run": init.name, **how}, init
    if tower := _text_tower(settings["objective"], objectives):
        settings["text_tower"], inputs["text_tower"] = tower, chain.member(tower, scale, models)
    if "texts" in data:
        if not tower:
            raise UserError(
                "data.texts: the objective reads captions that belong to the images; take it out, or name an objective "
                "that needs no pairs"
            )
        teachers = settings["objective"]["teachers"]
        inputs["corpus"] = corpora.corpus(scale, models, data["texts"], dataset, teachers)
    online, models_asked = _online(data, settings["objective"], scale, models)
    if online:
        settings["online"], inputs = online, inputs | models_asked
    stored, precision = _stored(settings, online), data.get("embeddings", "bfloat16")
    name, augmentation = _augmentation(settings, scale, stored, data.get("stored_views"))
    if words_for_texts := chain.tokenizer(scale):
        inputs["tokenizer"] = words_for_texts
    teachers = _stored_teachers(data, settings["objective"], stored, scale)
    reinforced = chain.reinforced(scale, models, dataset, name, augmentation, stored, precision, teachers)
    if "evaluate_every" in scale["evaluation"]:
        settings["watched"], inputs["pool"] = chain.watched(scale), chain.pool(scale)
    if settings["training"]["source"] == "stream":
        return artifact("runs", _slug(settings, objectives), settings, rows=chain.rows(reinforced), **inputs)
    views = chain.views(reinforced, config["model_cfg"]["vision_cfg"]["image_size"])
    return artifact("runs", _slug(settings, objectives), settings, views=views, **inputs)


def mixture_of(words: Mapping, scale: Mapping) -> dict | None:
    """The experts of a row, the scale's as the row changes them; None of a dense one."""
    if "mixture" not in words:
        return None
    mixture = merge(scale["mixture"], words["mixture"])
    check_mixture(mixture, "mixture")
    return mixture


def _check_init(start: Mapping, init: Artifact, model: str, configs: list[dict]) -> None:
    """A run starts from the same model, or a mixture from the dense one that it is made of.

    Of published weights nothing but a name may be known before they are there: then the job that trains looks.
    """
    name, theirs = init.settings["model"], init.settings.get("config")
    if init.stage == "runs":
        name, theirs = name["name"], name["config"]
    if theirs is not None and theirs not in configs:
        what = f"a run of model {name!r}, but is {model!r}" if name != model else "a mixture of other experts"
        raise UserError(
            f"init: starts from {what}; name a row of the same model, or of the dense one that a mixture is made of"
        )
    upcycles = theirs != configs[1]
    if (start.get("noise") or start.get("renewed")) and not upcycles:
        raise UserError("init: noise and renewed are for experts that are copied from a dense model; take them out")
    if start.get("optimizer") and not init.settings.get("training", {}).get("keep_optimizer"):
        raise UserError(
            "init.optimizer: the run that this one starts from does not keep its optimizer's state; set its "
            "training.keep_optimizer, or take this out"
        )


def _stored(settings: Mapping, online: Mapping) -> str:
    """What a run reads of a dataset that is not made online, see `clipdr.chain.reinforced`."""
    if settings["objective"].get("teachers") and "teachers" not in online:
        return "all"
    synthetic = {"syn": "captions" not in online, "real-or-syn": True, "real": False}
    return "captions" if any(synthetic[kind] for kind in settings["data"]["captions"]) else "plain"


def _stored_teachers(data: Mapping, objective: Mapping, stored: str, scale: Mapping) -> list[str] | None:
    """Whose embeddings the dataset of a run stores, if the run says so."""
    word = data.get("stored_teachers")
    names = look_up("data.stored_teachers", word, scale["teachers"], "teachers") if word else None
    known = names or chain.stored_teachers(scale)
    if stored == "all" and (missing := sorted(set(objective["teachers"]) - set(known))):
        raise UserError(
            f"objective.teachers: {missing[0]} is not stored, but {listed(known)}; name a word with all of them as "
            "data.stored_teachers"
        )
    return names


def _online(data: Mapping, objective: Mapping, scale: Mapping, models: Mapping) -> tuple[dict, dict]:
    """What models are asked for at every step: the setting `online`, and the models as inputs of the run."""
    asked, settings, inputs = data.get("online", []), {}, {}
    for word in asked:
        look_up("data.online", word, dict.fromkeys(ONLINE), "online")
    if "captions" in asked:
        if "syn" not in data["captions"]:
            raise UserError(
                "data.online: captions are asked for, but data.captions has no syn; add it, or take one out"
            )
        settings["captions"], inputs["captioner"] = scale["captions"], chain.member("captioner", scale, models)
    if "teachers" in asked:
        if not (names := objective.get("teachers")):
            raise UserError("data.online: teachers are asked for, but the objective reads none; take them out")
        if "student" in data:
            raise UserError(
                "data.student: teachers that are asked online see what the student sees; take one of them out"
            )
        settings["teachers"] = names
        inputs["teachers"] = [chain.member(name, scale, models) for name in names]
    return settings, inputs


def _slug(settings: Mapping, objectives: Mapping[str, dict]) -> str:
    schema = objectives[settings["objective"]["name"]]["properties"]
    objective = [
        f"{'' if isinstance(value, str | list) else key}{_text(value)}"
        for key, value in settings["objective"].items()
        if value != schema[key].get("default")  # whether it was said or not: equal settings have one name
    ]
    data = settings["data"]
    return "_".join(
        [
            slug(settings["model"]["name"]),
            "-".join([data["dataset"], data["augmentation"], *([f"{data['views']}views"] if "views" in data else [])]),
            *(["student"] if "student" in data else []),
            "-".join(
                [
                    data.get("texts") or "+".join(data["captions"]),
                    *([str(data["synthetic"])] if "synthetic" in data else []),
                ]
            ),
            "-".join(objective),
            *(["init"] if "init" in settings else []),
            *([_experts(settings)] if "mixture" in settings else []),
            *([f"online-{'+'.join(sorted(settings['online']))}"] if "online" in settings else []),
            f"seed{settings['seed']}",
        ]
    )


def _experts(settings: Mapping) -> str:
    """What a reader looks for first in a mixture: experts, and how many of them a token has."""
    towers = (settings["model"]["config"]["model_cfg"][key] for key in TOWERS.values())
    mixture = next(cfg[KEY] for cfg in towers if KEY in cfg)
    return f"{mixture['experts']}experts{mixture['top_k']}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _objective(words: Mapping, scale: Mapping, objectives: Mapping[str, dict]) -> dict:
    """The objective with the schema's defaults, and the scale's meaning of each key that the schema calls a word."""
    schema = look_up("objective.name", words["name"], objectives, "workflow/schemas/objectives")["properties"]
    settings = {}
    for key, entry in schema.items():
        value = words.get(key, entry.get("default"))
        if value is None:
            continue
        if "words" in entry:
            value = look_up(f"objective.{key}", value, scale[entry["words"]], entry["words"])
        settings[key] = float(value) if entry.get("type") == "number" else value
    return settings


def _check_present(words: Mapping, path: str) -> None:
    value = words
    for key in path.split("."):
        if key not in value:
            raise UserError(f"settings.{path} is missing; give it in the row or in the settings common to all rows")
        value = value[key]


def _first(data: Mapping, scale: Mapping) -> dict:
    """How many of the stored views and synthetic captions a run draws from, where that is not all."""
    augmentation = scale["augmentations"][data["augmentation"]]
    stored = {
        "views": data.get("stored_views", augmentation["views"]),
        "synthetic": scale["captions"]["number"],
    }
    for key, number in stored.items():
        if data.get(key, number) > number:
            raise UserError(f"data.{key} is {data[key]}, but only {number} are stored; lower it, or store more")
    return {key: data[key] for key, number in stored.items() if data.get(key, number) < number}


def _student(data: Mapping, scale: Mapping) -> dict:
    """The operations that are drawn over the student's view at every step, if there are any."""
    if "student" not in data:
        return {}
    entry = look_up("data.student", data["student"], scale["augmentations"], "augmentations")
    return {"student": {key: entry[key] for key in OPERATIONS if key in entry}}


def _augmentation(settings: Mapping, scale: Mapping, stored: str, stored_views: int | None) -> tuple[str, dict]:
    """Name and settings of the stored views; there are none where a run draws a new one each step.

    Embeddings that are stored are of stored views.
    """
    name = settings["data"]["augmentation"]
    entry = dict(scale["augmentations"][name])
    if stored_views is not None:
        entry["views"] = stored_views
    if not entry.pop("fresh", False) or stored == "all":
        return name, entry
    if settings["training"]["source"] == "memory":
        raise UserError(
            f"data.augmentation: {name!r} is drawn afresh; set training.source to stream, or fresh to false"
        )
    return f"{name}-fresh", {**entry, "views": 0}


def _text_tower(objective: Mapping, objectives: Mapping[str, dict]) -> str | None:
    """The teacher whose text tower the student has, where the objective's schema says that it has one."""
    schema = objectives[objective["name"]]["properties"]
    return next((objective[key][0] for key, entry in schema.items() if entry.get("text_tower")), None)


def _texts(data: Mapping) -> dict:
    """Kinds of captions, or a corpus and no captions."""
    if "texts" not in data:
        return {"captions": _captions(data)}
    if "captions" in data:
        raise UserError("data.texts stands in the place of data.captions; take one of them out")
    return {"captions": [], "texts": data["texts"]}


def _captions(data: Mapping) -> list[str]:
    """Sorted, because the loss is a sum over them (Eq. 3 of arXiv 2311.17049): the order is no setting."""
    for word in data["captions"]:
        look_up("data.captions", word, dict.fromkeys(CAPTIONS), "captions")
    if not data["captions"]:
        raise UserError("data.captions is empty; write [real], [syn] or [real, syn]")
    return sorted(set(data["captions"]))


def _init_row(row: str, start: Mapping, words: Mapping) -> str:
    if start["row"] not in words:
        raise UserError(
            f"row {row!r}: init.row: {start['row']!r} is no row with settings{nearest(start['row'], words)}; name one "
            "of this table"
        )
    return start["row"]
