"""Train one student on a reinforced dataset."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from clipdr.data.draws import First
from clipdr.data.manifest import MANIFEST
from clipdr.data.stream import ShardBatches
from clipdr.data.views import META, ViewBatches, load_views
from clipdr.errors import UserError
from clipdr.files import finished, partial_dir, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses import module_of
from clipdr.models.folder import (
    load_tokenizer,
    preprocessing,
    random_model,
    save_weights,
    weights_file,
    write_folder,
)
from clipdr.progress import log
from clipdr.train import ONLINE, START, TEXT_TOWER, UNPAIRED, WATCHED, checkpoint, named_modules
from clipdr.train.loop import fit
from clipdr.train.parallel import World, join, leave, wait
from clipdr.train.student import Student


@dataclass(frozen=True)
class MadeFrom:
    """The folders that a run is made from; see `train`."""

    data: Path
    tokenizer: Path | None = None
    init: Path | None = None
    teachers: Sequence[Path] = ()
    captioner: Path | None = None
    tasks: Path | None = None
    text_tower: Path | None = None
    corpus: Path | None = None


def train(
    settings: dict,
    data: Path,
    output: Path,
    tokenizer: Path | None = None,
    init: Path | None = None,
    tensorboard: Path | None = None,
    teachers: Sequence[Path] = (),
    captioner: Path | None = None,
    tasks: Path | None = None,
    text_tower: Path | None = None,
    corpus: Path | None = None,
) -> None:
    """Train and write `output`, a model folder with a `log.jsonl` and, if asked for, a ladder of weights.

    Args:
        settings: a run's resolved settings, see `clipdr.experiments`.
        data: materialised views, or the shards of `clipdr.data.rows` if the settings' source is a stream.
        tokenizer: folder with the tokenizer's files; without it, open_clip's for the model.
        init: model folder of the run that this one starts from; random weights without it.
        tensorboard: folder for TensorBoard's files.
        teachers, captioner: model folders of those that are asked at every step, as the settings' `online` names them.
        tasks: folder of the tasks that the run is scored on on the way, if the settings have `watched`.
        text_tower: model folder of the teacher whose text tower the student has, if the settings have `text_tower`.
        corpus: texts that do not belong to the images, what `clipdr.corpus` writes, if the settings' data have `texts`.

    Raises:
        UserError: the data lack a teacher or the synthetic captions that the settings name, or are fewer than a batch;
            `init` is of another model; the loss is not finite.
    """
    made = MadeFrom(data, tokenizer, init, teachers, captioner, tasks, text_tower, corpus)
    world = join(settings["training"]["device"], settings["training"]["processes"])
    try:
        token = _token(settings, made)
        if finished(output, token):
            log.info("%s was finished by another process", output)
        elif world.first:
            with resumable_dir(output, token) as folder:
                wait(world)
                _train(settings, made, folder, output.parent.name, world, tensorboard)
                (folder / checkpoint.RESUME).unlink(missing_ok=True)
        else:
            wait(world)  # until the first has made the folder, or found it
            _train(settings, made, partial_dir(output), output.parent.name, world, None)
    finally:
        leave()


def _train(settings: dict, made: MadeFrom, folder: Path, name: str, world: World, tensorboard: Path | None) -> None:
    """Train one student in `folder`, which all processes share and the first one writes."""
    if world.first:
        write_folder(settings["model"]["config"], made.tokenizer, folder)
    wait(world)
    student, objective, source = prepare(settings, made, folder, world)
    evaluate = begin = None
    if "watched" in settings:
        evaluate = importlib.import_module(WATCHED).evaluator(settings, made.tokenizer, made.tasks, folder)
    if settings.get("init", {}).get("optimizer"):
        begin = partial(importlib.import_module(START).take_moments, model=student.model, init=made.init)
    calls = {"evaluate": evaluate, "begin": begin}
    trained = fit(student, objective, source.batches, recipe(settings), name, folder, world, tensorboard, **calls)
    if world.first:
        save_weights(trained, folder)


def recipe(settings: dict) -> dict:
    """What the loop reads of a run's settings."""
    return {**settings["training"], "seed": settings["seed"]}


def prepare(settings: dict, made: MadeFrom, folder: Path, world: World) -> tuple[Student, torch.nn.Module, object]:
    """A run's student, objective and source of batches; `folder` is the student's, without weights."""
    model = random_model(settings["model"]["config"], settings["seed"], str(folder))
    if made.init is not None:
        asked = settings.get("init", {})
        importlib.import_module(START).start_from(model, made.init, folder, asked, settings["seed"])
    module, tokenize, online = module_of(settings["objective"]), load_tokenizer(folder).cut, settings.get("online", {})
    teachers = [] if "teachers" in online else module.teachers_of(settings["objective"])
    kinds = [kind for kind in settings["data"]["captions"] if not ("captions" in online and kind == "syn")]
    source = _source(settings, made.data, tokenize, preprocessing(model)[0], teachers, kinds, world)
    if online:
        source = importlib.import_module(ONLINE).Online(
            source, tokenize, online, made.teachers, made.captioner, settings["seed"], world
        )
    if "texts" in settings["data"]:
        unpaired = importlib.import_module(UNPAIRED).UnpairedTexts
        names, size = module.teachers_of(settings["objective"]), settings["training"]["batch_size"]
        source = unpaired(source, made.corpus, names, size, settings["seed"], world)
    if "text_tower" in settings:
        importlib.import_module(TEXT_TOWER).take(model, made.text_tower, folder)
    masked, weights = module.masked_of(settings["objective"]), settings.get("mixture", {})
    student = Student(model, recipe(settings), masked, "text_tower" in settings, weights)
    width = settings["model"]["config"]["model_cfg"]["embed_dim"]
    torch.manual_seed(settings["seed"])  # of the objective's own layers
    return student, module.Objective(settings["objective"], width, source.widths), source


def _source(settings: dict, data: Path, tokenize, side: int, teachers: list[str], kinds: list[str], world: World):
    """Where batches come from. Raises UserError for what can be known to be missing before the first step."""
    training, seed = settings["training"], settings["seed"]
    first = First(settings["data"].get("views"), settings["data"].get("synthetic"))
    share = {"rank": world.rank, "world": world.size, "first": first, "student": settings["data"].get("student")}
    if training["batch_size"] % world.size:
        raise UserError(
            f"training.batch_size is {training['batch_size']}, which {world.size} processes cannot share equally; "
            "make it a multiple of training.processes"
        )
    if training["source"] == "memory":
        views = load_views(data, teachers)
        if {"syn", "real-or-syn"} & set(kinds) and min(map(len, views.texts)) < 2:
            raise UserError(
                f"{data} has images without synthetic captions, which the run's `captions` name; caption the dataset "
                "first"
            )
        source = ViewBatches(views, tokenize, kinds, training["batch_size"], seed, **share)
        number = len(views)
    else:
        reading = {"workers": training["workers"], "buffer": training["shuffle_buffer"]}
        source = ShardBatches(data, side, tokenize, kinds, teachers, training["batch_size"], seed, **reading, **share)
        number = len(source)
    if training["batch_size"] > number:
        raise UserError(
            f"{data} has {number} images, fewer than a batch of {training['batch_size']}; lower `training.batch_size`, "
            "or enlarge the dataset"
        )
    return source


def _token(settings: dict, made: MadeFrom) -> str:
    """Stands for all that decides the weights: a killed run goes on only while none of it changed."""
    code = [own(name) for name in (__name__, *named_modules(settings))]
    meta = made.data / (META if settings["training"]["source"] == "memory" else MANIFEST)
    models = [folder for folder in (made.init, *made.teachers, made.captioner, made.text_tower) if folder]
    files = [meta, *([made.tokenizer / "tokenizer.json"] if made.tokenizer else []), *map(weights_file, models)]
    files += [made.corpus / MANIFEST] if made.corpus else []
    if not meta.is_file():
        raise UserError(
            f"{meta} is missing; `training.source` is {settings['training']['source']!r}: give such a folder"
        )
    return sha256(json.dumps([code, settings, [sha256_file(path) for path in files]], sort_keys=True).encode())
