"""From an experiment and a scale to the runs that have to be trained: pure functions, no files, no torch.

An experiment speaks the paper's words, a scale defines them. Here each row and seed becomes one `Run` with settings in
which no word is left to look up. Decided here:

* A run is named after its settings (readable slug + hash), so two rows or tables with equal settings share one run.
* The settings hold only what training reads itself. With λ = 0 no teacher is read, so none is named. What a word means
  for the data (size of a subset, strength of an augmentation) reaches training through the reinforced shards instead,
  and changes a run without renaming it.
* Beside the columns that a scale defines, a table may have network columns: parameters and latency, measured on the
  full-size network that a row names. They are the same at every scale.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clipdr.errors import UserError, nearest

SETTINGS = ("model", "dataset", "augmentation", "captions", "teachers", "lambda")
# Network column -> what is measured, and of which tower.
NETWORK_COLUMNS = {
    "Params img (M)": ("params", "image"),
    "Params txt (M)": ("params", "text"),
    "Latency img (ms)": ("latency", "image"),
    "Latency txt (ms)": ("latency", "text"),
}


@dataclass(frozen=True)
class Run:
    """One training run that a table asks for.

    `name` is unique to `settings`; `row` and `seed` say where the table uses it. `settings` is JSON-able and complete:
    model, model_config, dataset, pool, augmentation, captions, teachers, lambda, training, seed.
    """

    name: str
    row: str
    seed: int
    settings: dict = field(hash=False)


def plan(experiment: Mapping, scale: Mapping, models: Mapping[str, dict]) -> list[Run]:
    """The runs of an experiment at a scale, row by row, and seed by seed within a row.

    `experiment` and `scale` have the form of workflow/schemas/{experiment,scale}.schema.yaml; `models` maps the names
    of config/models to their contents. A scale's `seeds` limits the runs to the experiment's first seeds. A row without
    settings is not trained.

    Raises UserError (without a file name) for a word that the scale does not define, a setting that is missing,
    λ outside [0, 1], λ > 0 without teachers, and captions other than real and syn.
    """
    runs = []
    for row in experiment["rows"]:
        if "settings" not in row:
            continue
        words = {**experiment.get("settings", {}), **row["settings"]}
        try:
            settings = _resolve(words, scale, models)
        except UserError as error:
            raise UserError(f"row {row['name']!r}: {error}") from None
        seeds = experiment["seeds"][: scale.get("seeds")]
        runs += [_run(row["name"], {**settings, "seed": seed}) for seed in seeds]
    return runs


def has_runs(experiment: Mapping) -> bool:
    """Whether any row is trained; if none is, the table has no need of a scale, and no figure of its own."""
    return any("settings" in row for row in experiment["rows"])


def evaluation_columns(experiment: Mapping) -> list[str]:
    """The columns that a scale defines: all but the network columns."""
    return [column for column in experiment["columns"] if column not in NETWORK_COLUMNS]


def networks(experiment: Mapping, quantity: str) -> list[str]:
    """Networks whose `quantity`, params or latency, the table of an experiment reads, in order of first use."""
    columns = [column for column in experiment["columns"] if column in NETWORK_COLUMNS]
    if not any(NETWORK_COLUMNS[column][0] == quantity for column in columns):
        return []
    return list(dict.fromkeys(row["network"] for row in experiment["rows"] if "network" in row))


def slug(network: str) -> str:
    """The name of a network as a file name: `ViT-B/16:MCt-2` -> `ViT-B-16+MCt-2`."""
    return network.replace("/", "-").replace(":", "+")


def unique_runs(runs: Iterable[Run]) -> dict[str, dict]:
    """Name -> settings of each run that has to be trained, in order of first use."""
    return {run.name: run.settings for run in runs}


def zoo_settings(scale: Mapping, name: str) -> dict:
    """Settings of the zoo's member `name`: the scale's training recipe, with what the member says in its place."""
    zoo = scale["zoo"]
    member = zoo["captioner"] if name == "captioner" else zoo["teachers"][name]
    return {**scale["training"], "seed": zoo["seed"], "augmentation": dict(zoo["augmentation"]), **member}


def _run(row: str, settings: dict) -> Run:
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    slug = "_".join(
        [
            settings["model"],
            settings["dataset"],
            settings["augmentation"],
            "+".join(settings["captions"]),
            "+".join(settings["teachers"]) or "none",
            f"lambda{settings['lambda']:g}",
            f"seed{settings['seed']}",
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    # Read back: each run owns its settings, and they are exactly what a job gets as JSON.
    return Run(f"{slug}-{digest}", row, settings["seed"], json.loads(canonical))


def _resolve(words: Mapping, scale: Mapping, models: Mapping[str, dict]) -> dict:
    """Settings of a row, all but the seed, with each word replaced by what the scale says it means."""
    missing = [key for key in SETTINGS if key not in words]
    if missing:
        raise UserError(f"settings.{missing[0]} is missing; give it in the row or in the settings common to all rows")
    model = _look_up("model", words["model"], scale["models"], "models")
    return {
        "model": model,
        "model_config": _look_up("model", model, models, "config/models"),
        "dataset": _look_up("dataset", words["dataset"], scale["datasets"], "datasets")["name"],
        "pool": scale["pool"]["name"],
        "augmentation": _augmentation(words["augmentation"], scale),
        "captions": _captions(words["captions"]),
        "teachers": _teachers(words["teachers"], words["lambda"], scale),
        "lambda": float(words["lambda"]),
        "training": dict(scale["training"]),
    }


def _look_up(key: str, word: str, known: Mapping, where: str):
    if word not in known:
        listed = ", ".join(known) or "nothing"
        raise UserError(f"{key} {word!r} is not defined{nearest(word, known)} ({where} has {listed})")
    return known[word]


def _augmentation(word: str, scale: Mapping) -> str:
    _look_up("augmentation", word, scale["augmentations"], "augmentations")
    return word


def _captions(words: Iterable[str]) -> list[str]:
    """Sorted, because the loss is a sum over them (Eq. 3 of arXiv 2311.17049): the order is no setting."""
    captions = [words] if isinstance(words, str) else list(words)
    for word in captions:
        _look_up("captions", word, {"real": 0, "syn": 0}, "captions")
    if not captions:
        raise UserError("captions is empty; write [real], [syn] or [real, syn]")
    return sorted(set(captions))


def _teachers(word: str, lam: float, scale: Mapping) -> list[str]:
    if not 0 <= lam <= 1:
        raise UserError(f"lambda is {lam}; it must lie between 0 and 1")
    known = {**scale["teachers"], "none": []}
    teachers = _look_up("teachers", word, known, "teachers")
    if lam > 0 and not teachers:
        raise UserError(
            f"lambda is {lam:g} but teachers is {word!r}; name teachers to distill from, or set lambda to 0"
        )
    return list(teachers) if lam > 0 else []
