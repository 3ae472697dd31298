"""A model as a folder: `open_clip_config.json`, weights, and the tokenizer's files.

That is the layout that open_clip reads under the name `local-dir:<folder>`, so that any tool built on open_clip can use
what is trained here like a published weight. Networks that open_clip does not have carry keys that it refuses (MCt, the
padded stem), or are timm's only after `import clipdr.models.mini` (miniatures of MCi and FastViT).
"""

import json
import shutil
from pathlib import Path

from clipdr.errors import UserError
from clipdr.files import atomic_file, reason

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_pytorch_model.bin"  # what is written; published folders may have one of the others
PUBLISHED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_folder(config: dict, tokenizer: Path | None, folder: Path) -> None:
    """Make a model folder without weights.

    Args:
        config: `{"model_cfg": …, "preprocess_cfg": …}`, as `clipdr.model_files.load_models` gives it.
        tokenizer: folder with the tokenizer's files; None if the model's is open_clip's own.
        folder: receives the configuration and the tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    for name in TOKENIZER if tokenizer else ():
        if not (tokenizer / name).is_file():
            raise UserError(f"{tokenizer / name} is missing; give the folder of a trained tokenizer")
        shutil.copy(tokenizer / name, folder)


def random_model(config: dict, seed: int, name: str):
    """A model with random weights, in training mode; errors call it `name`."""
    import torch

    from clipdr.models.build import build

    torch.manual_seed(seed)
    return build(config, name)


def save_weights(model, folder: Path) -> None:
    """Add the weights to a folder made by `write_folder`."""
    import torch

    with atomic_file(folder / WEIGHTS) as path:
        torch.save(model.state_dict(), path)


def weights_file(folder: Path) -> Path:
    """The weights of a model folder. Raises UserError if there are none."""
    for name in (WEIGHTS, *PUBLISHED):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder / WEIGHTS} is missing; train or copy the model again")


def load_tokenizer(folder: Path):
    """The tokenizer of a model folder. Raises UserError for one that is broken, or that brings code of its own."""
    import open_clip

    from clipdr.models.tokenizer import Tokenizer

    config = folder / "tokenizer_config.json"
    try:
        if config.is_file() and "auto_map" in json.loads(config.read_text()):
            raise UserError(f"{config}: auto_map names code that would be run; take it out, or use another tokenizer")
        return Tokenizer(open_clip.get_tokenizer(f"local-dir:{folder}"))
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        raise UserError(f"{folder}: its tokenizer cannot be read ({reason(error)}); copy its files again") from None


def preprocessing(model) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """(image side in px, mean per channel, std per channel), the latter for pixel values in [0, 1]."""
    from clipdr.models.build import image_side

    cfg = model.visual.preprocess_cfg
    return image_side(model.visual), tuple(cfg["mean"]), tuple(cfg["std"])


def read_config(folder: Path) -> dict:
    """`{"model_cfg": …, "preprocess_cfg": …}` of a folder. Raises UserError if it is missing or no configuration."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
        for tower in ("vision_cfg", "text_cfg"):
            config["model_cfg"][tower]  # a KeyError if it is missing
        return {"model_cfg": config["model_cfg"], "preprocess_cfg": config["preprocess_cfg"]}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; train or copy the model again") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: no configuration of a model ({error!r}); train or copy the model again") from None
