"""Make a model by its name, with random or published weights."""

import json
from pathlib import Path

import torch

from clipdr.errors import UserError
from clipdr.files import atomic_dir
from clipdr.models.build import build
from clipdr.models.folder import CONFIG, TOKENIZER, save_weights
from clipdr.models.registry import configuration, open_clip_name, tags_with_quick_gelu
from clipdr.models.tokenizer import Tokenizer
from clipdr.models.weights import load_pretrained
from clipdr.progress import log

BESIDE = "beside-this-file"  # as `hf_tokenizer_name`: the folder of the configuration has the tokenizer


def create_model(
    name: str,
    pretrained: Path | str | None = None,
    tokenizer: Path | str | None = None,
    preprocess_cfg: dict | None = None,
    seed: int = 0,
):
    """The model of that name, in evaluation mode.

    Args:
        name: a name of config/models (`MobileCLIP-S0`, `ViT-S/16:MCt`) or of open_clip (`ViT-B-32`).
        pretrained: file of weights, Apple's or open_clip's or ours; without one the weights are random.
        tokenizer: folder with a tokenizer, for the miniatures: theirs is trained on their pool.
        preprocess_cfg: `{"mean": …, "std": …, "interpolation": …}`, for a model of open_clip whose published weights do
            not agree on it.
        seed: of random weights.

    Raises:
        UserError: an unknown name, a file of weights that is missing, unsafe, or of another model, a tokenizer or a
            preprocessing that has to be given.
    """
    config = configuration(name, preprocess_cfg)
    if "preprocess_cfg" not in config:
        raise UserError(
            f"{name}: its published weights do not say, or not agree on, how images are prepared; give preprocess_cfg="
            "{'mean': [...], 'std': [...], 'interpolation': 'bicubic' or 'bilinear'}"
        )
    tokenize = _tokenizer(name, config["model_cfg"]["text_cfg"], tokenizer)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(seed)
        model = build(config, name)
    if pretrained is not None:
        load_pretrained(model, Path(pretrained), name)
        _warn_of_quick_gelu(name)
    model.tokenizer = tokenize
    return model.eval()


def import_weights(name: str, pretrained: Path, output: Path) -> None:
    """Make a model folder out of a published file of weights, for `python -m clipdr.evaluate --model <output>`.

    Args:
        name: a name of config/models; models of open_clip have such folders already.
        pretrained: the file, see `clipdr.models.weights`.

    Raises:
        UserError: as `create_model`.
    """
    config = configuration(name)
    if open_clip_name(name):
        raise UserError(
            f"{name} is open_clip's model, whose published folders can be used as they are; name one of config/models"
        )
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name") == BESIDE:
        raise UserError(f"{name} is trained by the workflow and has its folder already: results/runs/<run>/model")
    model = create_model(name, pretrained)
    with atomic_dir(output) as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        save_weights(model, folder)


def _warn_of_quick_gelu(name: str) -> None:
    """The activation leaves no trace in a file of weights: with the wrong one, a model only gets worse."""
    plain = open_clip_name(name)
    if plain and (tags := tags_with_quick_gelu(plain)):
        log.warning(
            "%s has GELU, but open_clip's weights %s were trained with QuickGELU; if these are some of them, take "
            "%s-quickgelu, or another name with QuickGELU",
            name,
            ", ".join(tags),
            plain,
        )


def _tokenizer(name: str, text_cfg: dict, folder: Path | None):
    import open_clip

    if text_cfg.get("hf_tokenizer_name") == BESIDE:
        if folder is None:
            raise UserError(
                f"{name}: its tokenizer is trained on the pool, not published; give the folder, for instance "
                "tokenizer='results/tokenizer/<pool>/tokenizer'"
            )
        for file in TOKENIZER:  # without them transformers would ask the Hub for a repository of that name
            if not (Path(folder) / file).is_file():
                raise UserError(f"{name}: {Path(folder) / file} is missing; give the folder of a trained tokenizer")
        return Tokenizer(open_clip.tokenizer.HFTokenizer(str(folder), context_length=text_cfg["context_length"]))
    if folder is not None:
        raise UserError(f"{name}: its tokenizer is open_clip's; leave out tokenizer={str(folder)!r}")
    if plain := open_clip_name(name):
        try:
            return Tokenizer(open_clip.get_tokenizer(plain))
        except OSError as error:
            raise UserError(
                f"{name}: its tokenizer, {text_cfg.get('hf_tokenizer_name')} of the Hugging Face Hub, cannot be "
                f"fetched ({str(error).splitlines()[0]}); call it once with a network"
            ) from None
    return Tokenizer(open_clip.SimpleTokenizer(context_length=text_cfg["context_length"]))
