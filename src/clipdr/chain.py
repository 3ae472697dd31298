"""What runs are made from and evaluated on, as artifacts: from pool and zoo to stored views. No files.

Functions take a scale as its paper sees it, in the form of workflow/schemas/scale.schema.yaml, and `models`, names of
config/models with their contents.
"""

from collections.abc import Mapping, Sequence

from clipdr.artifacts import Artifact, artifact
from clipdr.checkpoints import weights_of
from clipdr.errors import look_up

DESCRIPTIVE = ("suite", "groups", "source", "form", "by_hand", "licence", "note")  # of a task, what changes no number


def pool(scale: Mapping) -> Artifact:
    """Training images with captions, and, of some kinds, the held-out tasks."""
    published = {"augmentation": _published(scale)} if "reinforcements" in scale["pool"] else {}
    return artifact("pool", scale["pool"]["name"], {**scale["pool"], **published})


def subset(scale: Mapping, dataset: Mapping) -> Artifact:
    """The chosen pairs of a dataset, an entry of the scale's `datasets`."""
    settings = {key: dataset[key] for key in ("size", "seed", "chunks") if key in dataset}
    if scale["pool"]["kind"] == "datacomp":  # of which many images cannot be fetched any more
        settings["at_most"] = True
    return artifact("subset", dataset["name"], settings, pool=pool(scale))


def chunks_of(made: Artifact) -> int:
    """In how many chunks a pool, captions, a reinforced dataset or its rows are made: the last three as the subset."""
    if made.stage == "rows":
        return chunks_of(made.inputs["reinforced"])
    if made.stage == "pool":
        return made.settings.get("chunks", 1)
    return made.inputs["subset"].settings.get("chunks", 1)


def tokenizer(scale: Mapping) -> Artifact | None:
    """The tokenizer that all models trained on a pool share; published models bring their own."""
    if scale["zoo"]["kind"] == "published":
        return None
    return artifact("tokenizer", scale["pool"]["name"], {"vocab_size": scale["zoo"]["vocab_size"]}, pool=pool(scale))


def member(name: str, scale: Mapping, models: Mapping) -> Artifact:
    """A teacher of the zoo, or the captioner: trained by the scale's recipe, with what it says itself in its place."""
    zoo = scale["zoo"]
    own = zoo["captioner"] if name == "captioner" else zoo["teachers"][name]
    if zoo["kind"] == "published":
        return artifact("zoo", name, weights_of(own, models).settings)
    alone = {"processes": 1, "source": "memory", "workers": 0, "ladder": 0, "ema": 0.0, "piece_size": 0}
    alone["keep_optimizer"] = False
    of_zoo = {"seed": zoo["seed"], "augmentation": zoo["augmentation"]}
    settings = {**scale["training"], **alone, **of_zoo, **own}
    settings["config"] = look_up(f"zoo: {name}: model", settings["model"], models, "config/models")
    return artifact("zoo", name, settings, pool=pool(scale), tokenizer=tokenizer(scale))


def captions(scale: Mapping, models: Mapping, dataset: Mapping) -> Artifact:
    """Synthetic captions of a dataset: drawn from the captioner, or those that the pool brings."""
    chosen = subset(scale, dataset)
    if "reinforcements" in scale["pool"]:
        number = {"number": scale["captions"]["number"]}
        return artifact("captions", dataset["name"], number, pool=pool(scale), subset=chosen)
    captioner = member("captioner", scale, models)
    settings = scale["captions"]
    return artifact("captions", dataset["name"], settings, pool=pool(scale), subset=chosen, captioner=captioner)


def reinforced(
    scale: Mapping,
    models: Mapping,
    dataset: Mapping,
    name: str,
    augmentation: Mapping,
    stored: str,
    precision: str = "bfloat16",
    teachers: Sequence[str] | None = None,
) -> Artifact:
    """The dataset with what is stored in it beside images, their captions and views of one augmentation.

    `stored` is `all`, synthetic captions and embeddings of `teachers`, in some `precision`; `captions`, synthetic ones
    alone; or `plain`. Runs do not wait for what they never read, and do not change with it.
    """
    usual = stored_teachers(scale)
    names = list(teachers or usual) if stored == "all" else []
    if names == usual and precision == "bfloat16" and augmentation == _published(scale):
        settings = {"augmentation": augmentation, "teachers": scale["pool"]["teachers"]}
        return artifact(
            "reinforced", f"{dataset['name']}-{name}", settings, pool=pool(scale), subset=subset(scale, dataset)
        )
    captioned = {"captions": captions(scale, models, dataset)} if stored != "plain" else {}
    stored_as = {"embeddings": precision} if precision != "bfloat16" and stored == "all" else {}
    return artifact(
        "reinforced",
        "-".join([dataset["name"], name, *([stored] if stored != "all" else [])]),
        {"augmentation": augmentation, "teachers": names, **stored_as},
        pool=pool(scale),
        subset=subset(scale, dataset),
        teachers=[member(teacher, scale, models) for teacher in names],
        **captioned,
    )


def stored_teachers(scale: Mapping) -> list[str]:
    """Whose embeddings a dataset stores, unless a run says otherwise: of the word `ensemble`, or of the whole zoo."""
    return scale["teachers"].get("ensemble", list(scale["zoo"]["teachers"]))


def _published(scale: Mapping) -> dict | None:
    """The augmentation whose views and embeddings the pool brings, if it brings any."""
    if "reinforcements" not in scale["pool"]:
        return None
    entry = scale["augmentations"][scale["pool"]["augmentation"]]
    return {key: value for key, value in entry.items() if key != "fresh"}


def views(reinforced: Artifact, side: int) -> Artifact:
    """Its stored views as arrays, at the side that a student reads, in px."""
    return artifact("views", f"{reinforced.name.rpartition('-')[0]}-{side}px", {"size": side}, reinforced=reinforced)


def rows(reinforced: Artifact) -> Artifact:
    """The same in the form that is read as a stream."""
    return artifact("rows", reinforced.name.rpartition("-")[0], {}, reinforced=reinforced)


def suites_of(scale: Mapping) -> list[str]:
    """Names of the suites that a scale evaluates on."""
    named = scale["evaluation"]["suite"]
    return named if isinstance(named, list) else [named]


def watched(scale: Mapping) -> dict:
    """What a run is scored on on the way, and how often."""
    asked = scale["evaluation"]
    every = asked["evaluate_every"]
    folder = {"folder": asked["tasks"]} if "tasks" in asked else {}
    return {"every": every["steps"], "tasks": _tasks(every), "batch_size": asked["batch_size"], **folder}


def _tasks(suite: Mapping) -> list[dict]:
    return [{key: value for key, value in task.items() if key not in DESCRIPTIVE} for task in suite["tasks"]]


def suite_of(scale: Mapping, models: Mapping, suite: Mapping) -> Artifact:
    """What models are evaluated on: tasks, of the pool or in the folder that the scale names, and how.

    And the teachers that tasks compare with.
    """
    of_scale = ("batch_size", "precision")
    settings = {
        "tasks": _tasks(suite),
        **{key: scale["evaluation"][key] for key in of_scale if key in scale["evaluation"]},
    }
    name, inputs = "+".join(suites_of(scale)), {}
    if names := sorted({task["teacher"] for task in suite["tasks"] if "teacher" in task}):
        settings["teachers"], inputs["teachers"] = names, [member(teacher, scale, models) for teacher in names]
    if "tasks" in scale["evaluation"]:
        return artifact("suites", name, settings | {"folder": scale["evaluation"]["tasks"]}, **inputs)
    return artifact("suites", name, settings, pool=pool(scale), **inputs)


def evaluation(models: Sequence[Artifact], suite: Artifact) -> Artifact:
    """The evaluation of a run, or of several models together."""
    name = f"{'+'.join(model.name for model in models)}/{suite.name.rpartition('-')[0]}"
    inputs = {"teachers": suite.inputs["teachers"]} if "teachers" in suite.inputs else {}
    return artifact("eval", name, {}, run=models[0] if len(models) == 1 else list(models), suite=suite, **inputs)
