"""Train a teacher (contrastive) or a captioner (CoCa: contrastive and captioning) on the pool with all its texts."""

import json
from pathlib import Path

from torch import Tensor
from torch.nn.functional import cross_entropy

from clipdr.data.views import ViewBatches
from clipdr.files import finished, resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.losses.clip import Objective
from clipdr.models.folder import load_tokenizer, preprocessing, random_model, save_weights, write_folder
from clipdr.progress import log
from clipdr.train import checkpoint
from clipdr.train.loop import fit
from clipdr.train.parallel import join
from clipdr.train.student import Student
from clipdr.zoo.data import pool_views


def train_member(settings: dict, pool: Path, tokenizer: Path, output: Path) -> None:
    """Train one member of the zoo and save it as a model folder with a `log.jsonl`.

    Args:
        settings: `config` (the model's; one with a `multimodal_cfg` is a captioner), `augmentation` (views, crop_scale,
            num_ops, magnitude, seed), `seed`, and the keys of workflow/schemas/training.schema.yaml.
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
        write_folder(settings["config"], tokenizer, folder)
        model = random_model(settings["config"], settings["seed"], str(folder))
        views = pool_views(pool, {**settings["augmentation"], "image_size": preprocessing(model)[0]})
        source = ViewBatches(views, load_tokenizer(folder).cut, ["any"], settings["batch_size"], settings["seed"])
        student = (Captioner if "multimodal_cfg" in settings["config"]["model_cfg"] else Student)(model, settings)
        world = join(settings["device"], settings["processes"])
        objective = Objective({}, settings["config"]["model_cfg"]["embed_dim"], {})
        save_weights(fit(student, objective, source.batches, settings, output.parent.name, folder, world), folder)
        (folder / checkpoint.RESUME).unlink(missing_ok=True)


class Captioner(Student):
    """A CoCa, which has a part of the loss of its own: the cross-entropy of each next token of the caption."""

    def embed(
        self, images: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        (name, img), (kind, tokens) = *images.items(), *texts.items()
        out = self.model(img, tokens)
        caption = cross_entropy(out["logits"].transpose(1, 2), out["labels"], ignore_index=self.model.pad_id)
        return {name: out["image_features"]}, {kind: out["text_features"]}, {"caption": caption}
