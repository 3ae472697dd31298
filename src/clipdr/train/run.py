"""Train one student on a reinforced dataset (MobileCLIP, section 3)."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml

from clipdr.errors import UserError
from clipdr.files import resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses.reinforced import reinforced_loss
from clipdr.models import new_model, preprocessing, save_weights
from clipdr.train.loop import epoch_batch, fit, step_rng
from clipdr.views import TokenTable, Views, load_views, to_input

REAL = 0  # column of the real caption; synthetic captions follow


def train(settings: dict, views_dir: Path, tokenizer: Path, output: Path) -> None:
    """Train and write `settings.yaml`, `log.jsonl`, `checkpoint.pt` and `model/`, a model folder, into `output`.

    Args:
        settings: a run's resolved settings, see `clipdr.experiments`.
        views_dir: materialised views with the embeddings of the settings' teachers.
        tokenizer: folder with the tokenizer's files.

    Raises:
        UserError: the views lack a teacher or the synthetic captions that the settings name.
    """
    views = load_views(views_dir, settings["teachers"])
    if "syn" in settings["captions"] and min(map(len, views.texts)) < 2:
        raise UserError(
            f"{views_dir} has no synthetic captions, which the run's `captions` name; caption the dataset first"
        )
    with resumable_dir(output, _token(settings, views_dir, tokenizer), stale=("eval",)) as folder:
        model, tokenize = new_model(settings["model_config"], tokenizer, folder / "model", settings["seed"])
        training = {**settings["training"], "seed": settings["seed"]}
        loss_at = student_loss(model, views, TokenTable(tokenize.cut, views.texts), settings)
        records = fit(model, loss_at, training, output.name, folder)
        save_weights(model, folder / "model")
        (folder / "resume.pt").unlink(missing_ok=True)
        torch.save({"model": model.state_dict(), "step": training["steps"]}, folder / "checkpoint.pt")
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=True, allow_unicode=True))
        (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _token(settings: dict, views_dir: Path, tokenizer: Path) -> str:
    """Stands for all that decides the weights: a killed run goes on only while none of it changed."""
    embeddings = [f"{name}.{kind}.npy" for name in settings["teachers"] for kind in ("image", "text")]
    inputs = [views_dir / name for name in ("images.npy", "texts.json", "teachers.json", *embeddings)]
    digests = [sha256_file(path) for path in [*inputs, tokenizer / "tokenizer.json"]]
    return sha256(json.dumps([own(__name__), settings, digests], sort_keys=True).encode())


def student_loss(model, views: Views, tokens: TokenTable, settings: dict):
    """The loss of a step as a function of its number: Eq. 3 on a batch drawn from (seed, step).

    Each image comes in one random stored view, with its real caption, one random synthetic caption, or both.
    """
    _, mean, std = preprocessing(model)
    seed, batch_size = settings["seed"], settings["training"]["batch_size"]

    def loss_at(step: int) -> torch.Tensor:
        rng = step_rng(seed, step)
        rows = epoch_batch(len(views), batch_size, seed, step)
        view = rng.integers(views.img_NACSS.shape[1], size=batch_size)
        synthetic = rng.integers(1, np.maximum(tokens.counts[rows], 2))
        columns = [np.full(batch_size, REAL) if kind == "real" else synthetic for kind in settings["captions"]]
        img_BD = model.encode_image(to_input(views.img_NACSS[rows, view], mean, std), normalize=True)
        txt_MD = model.encode_text(torch.cat([tokens.pick(rows, column) for column in columns]), normalize=True)
        teachers = [_teachers(views, rows, view, column) for column in columns]
        scale = model.logit_scale.exp()
        return reinforced_loss(img_BD, list(txt_MD.split(batch_size)), scale, settings["lambda"], teachers)

    return loss_at


def _teachers(views: Views, rows: np.ndarray, view: np.ndarray, column: np.ndarray) -> list:
    return [
        (torch.from_numpy(img_NAE[rows, view]), torch.from_numpy(txt_NTE[rows, column]), scale)
        for img_NAE, txt_NTE, scale in views.teachers.values()
    ]
