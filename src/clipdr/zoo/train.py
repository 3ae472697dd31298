"""Train a teacher (contrastive) or a captioner (CoCa: contrastive and captioning) on the pool with all its texts."""

import json
from pathlib import Path

import torch

from clipdr.files import resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses.clip import clip_loss
from clipdr.models import new_model, preprocessing, save_weights
from clipdr.train.loop import epoch_batch, fit, step_rng
from clipdr.views import TokenTable, to_input
from clipdr.zoo.data import pool_views


def train_member(settings: dict, config: dict, pool: Path, tokenizer: Path, output: Path) -> None:
    """Train one member of the zoo and save it as an open_clip folder with a `log.jsonl`.

    Args:
        settings: steps, batch_size, lr, …, seed and `augmentation` (views, crop_scale, num_ops, magnitude, seed).
        config: the model's configuration; one with a `multimodal_cfg` is a captioner.
        pool: folder of the pool's shards.
        tokenizer: folder with the tokenizer's files.
        output: the open_clip folder.
    """
    inputs = [sha256_file(path) for path in (pool / "index.parquet", tokenizer / "tokenizer.json")]
    token = sha256(json.dumps([own(__name__), settings, config, inputs], sort_keys=True).encode())
    with resumable_dir(output, token) as folder:
        model, tokenize = new_model(config, tokenizer, folder, settings["seed"])
        side, mean, std = preprocessing(model)
        views = pool_views(pool, {**settings["augmentation"], "image_size": side})
        tokens = TokenTable(tokenize.cut, views.texts)
        loss = _captioner_loss if "multimodal_cfg" in config["model_cfg"] else _teacher_loss

        def loss_at(step: int) -> torch.Tensor:
            rng = step_rng(settings["seed"], step)
            rows = epoch_batch(len(views), settings["batch_size"], settings["seed"], step)
            view = rng.integers(views.img_NACSS.shape[1], size=len(rows))
            texts = tokens.pick(rows, rng.integers(tokens.counts[rows]))
            return loss(model, to_input(views.img_NACSS[rows, view], mean, std), texts)

        records = fit(model, loss_at, settings, output.name, folder)
        save_weights(model, folder)
        (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (folder / "resume.pt").unlink(missing_ok=True)


def _teacher_loss(model, img: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    img_BD, txt_BD = model.encode_image(img, normalize=True), model.encode_text(tokens, normalize=True)
    return clip_loss(img_BD, txt_BD, model.logit_scale.exp())


def _captioner_loss(model, img: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    out = model(img, tokens)
    caption = torch.nn.functional.cross_entropy(out["logits"].transpose(1, 2), out["labels"], ignore_index=model.pad_id)
    return clip_loss(out["image_features"], out["text_features"], out["logit_scale"]) + caption
