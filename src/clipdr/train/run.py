"""Train one student on a reinforced dataset."""

import json
from pathlib import Path

import torch

from clipdr.data.manifest import MANIFEST
from clipdr.data.stream import ShardBatches
from clipdr.data.views import META, ViewBatches, load_views
from clipdr.errors import UserError
from clipdr.files import finished, partial_dir, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses import module_name, module_of
from clipdr.models.folder import (
    WEIGHTS,
    load_tokenizer,
    preprocessing,
    random_model,
    read_config,
    save_weights,
    write_folder,
)
from clipdr.progress import log
from clipdr.train import checkpoint
from clipdr.train.loop import fit
from clipdr.train.parallel import World, join, leave, wait
from clipdr.train.student import Student


def train(
    settings: dict,
    data: Path,
    output: Path,
    tokenizer: Path | None = None,
    init: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Train and write `output`, a model folder with a `log.jsonl` and, if asked for, a ladder of weights.

    Args:
        settings: a run's resolved settings, see `clipdr.experiments`.
        data: materialised views, or the folder of reinforced shards if the settings' source is a stream.
        tokenizer: folder with the tokenizer's files; without it, open_clip's for the model.
        init: model folder of the run that this one starts from; random weights without it.
        tensorboard: folder for TensorBoard's files.

    Raises:
        UserError: the data lack a teacher or the synthetic captions that the settings name, or are fewer than a batch;
            `init` is of another model; the loss is not finite.
    """
    world = join(settings["training"]["device"], settings["training"]["processes"])
    try:
        token = _token(settings, data, tokenizer, init)
        if finished(output, token):
            log.info("%s was finished by another process", output)
        elif world.first:
            with resumable_dir(output, token) as folder:
                wait(world)
                _train(settings, data, tokenizer, init, folder, output.parent.name, world, tensorboard)
                (folder / checkpoint.RESUME).unlink(missing_ok=True)
        else:
            wait(world)  # until the first has made the folder, or found it
            _train(settings, data, tokenizer, init, partial_dir(output), output.parent.name, world, None)
    finally:
        leave()


def _train(
    settings: dict,
    data: Path,
    tokenizer: Path | None,
    init: Path | None,
    folder: Path,
    name: str,
    world: World,
    tensorboard,
) -> None:
    """Train one student in `folder`, which all processes share and the first one writes."""
    config, training = settings["model"]["config"], {**settings["training"], "seed": settings["seed"]}
    if world.first:
        write_folder(config, tokenizer, folder)
    wait(world)
    model = random_model(config, settings["seed"], str(folder))
    if init is not None:
        _start_from(model, init, folder)
    module = module_of(settings["objective"])
    teachers = module.teachers_of(settings["objective"])
    source = _source(settings, data, load_tokenizer(folder).cut, preprocessing(model)[0], teachers, world)
    student, objective = Student(model, training), module.Objective(settings["objective"])
    trained = fit(student, objective, source.batches, training, name, folder, world, tensorboard)
    if world.first:
        save_weights(trained, folder)


def _source(settings: dict, data: Path, tokenize, side: int, teachers: list[str], world: World):
    """Where batches come from. Raises UserError for what can be known to be missing before the first step."""
    kinds, training, seed = settings["data"]["captions"], settings["training"], settings["seed"]
    share = {"rank": world.rank, "world": world.size}
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


def _start_from(model: torch.nn.Module, init: Path, folder: Path) -> None:
    if read_config(init)["model_cfg"] != read_config(folder)["model_cfg"]:
        raise UserError(f"{init} is another model than the one to train; start from a run of the same model")
    model.load_state_dict(torch.load(init / WEIGHTS, weights_only=True))


def _token(settings: dict, data: Path, tokenizer: Path | None, init: Path | None) -> str:
    """Stands for all that decides the weights: a killed run goes on only while none of it changed."""
    code = [own(__name__), own(module_name(settings["objective"]["name"]))]
    meta = data / (META if settings["training"]["source"] == "memory" else MANIFEST)
    files = [meta, *([tokenizer / "tokenizer.json"] if tokenizer else []), *([init / WEIGHTS] if init else [])]
    if not meta.is_file():
        raise UserError(
            f"{meta} is missing; `training.source` is {settings['training']['source']!r}: give such a folder"
        )
    return sha256(json.dumps([code, settings, [sha256_file(path) for path in files]], sort_keys=True).encode())
