"""Train one student on a reinforced dataset."""

import json
from pathlib import Path

import torch

from clipdr.data.views import META, TokenTable, load_views, view_batches
from clipdr.errors import UserError
from clipdr.files import finished, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses import module_name, module_of
from clipdr.models.folder import WEIGHTS, new_model, read_config, save_weights
from clipdr.progress import log
from clipdr.train.loop import Student, fit


def train(settings: dict, views_dir: Path, tokenizer: Path, output: Path, init: Path | None = None) -> None:
    """Train and write `output`, a model folder with a `log.jsonl`.

    Args:
        settings: a run's resolved settings, see `clipdr.experiments`.
        views_dir: materialised views with the embeddings of the teachers that the objective reads.
        tokenizer: folder with the tokenizer's files.
        init: model folder of the run that this one starts from; random weights without it.

    Raises:
        UserError: the views lack a teacher or the synthetic captions that the settings name, or are fewer than a batch;
            `init` is of another model.
    """
    token = _token(settings, views_dir, tokenizer, init)
    if finished(output, token):
        log.info("%s was finished by another process", output)
        return
    objective = module_of(settings["objective"])
    views = load_views(views_dir, objective.teachers_of(settings["objective"]))
    captions, training = settings["data"]["captions"], {**settings["training"], "seed": settings["seed"]}
    _check(views, views_dir, captions, training["batch_size"])
    with resumable_dir(output, token) as folder:
        model, tokenize = new_model(settings["model"]["config"], tokenizer, folder, settings["seed"])
        if init is not None:
            _start_from(model, init, folder)
        tokens = TokenTable(tokenize.cut, views.texts)

        def batches(start: int):
            return view_batches(views, tokens, captions, training["batch_size"], settings["seed"], start)

        student = Student(model, objective.Objective(settings["objective"]))
        records = fit(student, batches, training, output.parent.name, folder)
        save_weights(model, folder)
        (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (folder / "resume.pt").unlink(missing_ok=True)


def _check(views, views_dir: Path, captions: list[str], batch_size: int) -> None:
    if "syn" in captions and min(map(len, views.texts)) < 2:
        raise UserError(
            f"{views_dir} has images without synthetic captions, which the run's `captions` name; caption the dataset "
            "first"
        )
    if batch_size > len(views):
        raise UserError(
            f"{views_dir} has {len(views)} images, fewer than a batch of {batch_size}; lower `training.batch_size` of "
            "the scale, or enlarge the dataset"
        )


def _start_from(model: torch.nn.Module, init: Path, folder: Path) -> None:
    if read_config(init)["model_cfg"] != read_config(folder)["model_cfg"]:
        raise UserError(f"{init} is another model than the one to train; start from a run of the same model")
    model.load_state_dict(torch.load(init / WEIGHTS, weights_only=True))


def _token(settings: dict, views_dir: Path, tokenizer: Path, init: Path | None) -> str:
    """Stands for all that decides the weights: a killed run goes on only while none of it changed."""
    code = [own(__name__), own(module_name(settings["objective"]["name"]))]
    files = [views_dir / META, tokenizer / "tokenizer.json", *([init / WEIGHTS] if init else [])]
    return sha256(json.dumps([code, settings, [sha256_file(path) for path in files]], sort_keys=True).encode())
