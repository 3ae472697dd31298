"""Train a teacher (contrastive) or a captioner (CoCa: contrastive and captioning) on the pool with all its texts."""

import json
from pathlib import Path

import torch
from torch import Tensor

from clipdr.batch import Batch
from clipdr.data.views import TokenTable, view_batches
from clipdr.files import finished, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses.clip import Objective
from clipdr.models.folder import new_model, preprocessing, save_weights
from clipdr.progress import log
from clipdr.train.loop import Student, fit, to_input
from clipdr.zoo.data import pool_views


def train_member(settings: dict, pool: Path, tokenizer: Path, output: Path) -> None:
    """Train one member of the zoo and save it as a model folder with a `log.jsonl`.

    Args:
        settings: `config` (the model's; one with a `multimodal_cfg` is a captioner), steps, batch_size, lr, …, seed and
            `augmentation` (views, crop_scale, num_ops, magnitude, seed).
        pool: folder of the pool's shards.
        tokenizer: folder with the tokenizer's files.
        output: the model folder.
    """
    inputs = [sha256_file(path) for path in (pool / "index.parquet", tokenizer / "tokenizer.json")]
    token = sha256(json.dumps([own(__name__), settings, inputs], sort_keys=True).encode())
    if finished(output, token):
        log.info("%s was finished by another process", output)
        return
    with resumable_dir(output, token) as folder:
        model, tokenize = new_model(settings["config"], tokenizer, folder, settings["seed"])
        views = pool_views(pool, {**settings["augmentation"], "image_size": preprocessing(model)[0]})
        tokens = TokenTable(tokenize.cut, views.texts)

        def batches(start: int):
            return view_batches(views, tokens, ["any"], settings["batch_size"], settings["seed"], start)

        student = (Captioner if "multimodal_cfg" in settings["config"]["model_cfg"] else Student)(model, Objective({}))
        records = fit(student, batches, settings, output.parent.name, folder)
        save_weights(model, folder)
        (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (folder / "resume.pt").unlink(missing_ok=True)


class Captioner(Student):
    """A CoCa, which has a part of its own: the cross-entropy of each next token of the caption."""

    def embed(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        (name, img), (kind, tokens) = *batch.images.items(), *batch.texts.items()
        out = self.model(to_input(img, self.mean, self.std), tokens)
        logits, pad = out["logits"].transpose(1, 2), self.model.pad_id
        caption = torch.nn.functional.cross_entropy(logits, out["labels"], ignore_index=pad)
        return {name: out["image_features"]}, {kind: out["text_features"]}, {"caption": caption}
