"""Models as open_clip knows them: a folder with `open_clip_config.json`, weights, and tokenizer files.

Everything that is trained here, teachers, captioner and students alike, is saved in the layout that open_clip reads
under the name `local-dir:<folder>`, so that any tool built on open_clip can use it like a published weight.
"""

import json
import shutil
from pathlib import Path

from clipdr.errors import UserError

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_pytorch_model.bin"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def new_model(config: dict, tokenizer: Path, folder: Path, seed: int):
    """Write a model folder without weights and return its randomly initialised model and its tokenizer.

    Args:
        config: `{"model_cfg": …, "preprocess_cfg": …}`, the content of a file in `config/models/`.
        tokenizer: folder with the tokenizer's files.
        folder: receives the configuration and the tokenizer.
        seed: of the initial weights.
    """
    import open_clip
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, folder)
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    if hasattr(model, "text_decoder"):  # open_clip (3.3, its issue 554) leaves this weight as memory happened to be
        weight = model.text_decoder.text_projection
        torch.nn.init.normal_(weight, std=len(weight) ** -0.5)
    return model, load_tokenizer(folder)


def save_weights(model, folder: Path) -> None:
    """Add the weights to a folder made by `new_model`."""
    import torch

    torch.save(model.state_dict(), folder / WEIGHTS)


def load_model(folder: Path):
    """Load a model in evaluation mode.

    Raises:
        UserError: no configuration or no weights (open_clip would go on with random ones).
    """
    import open_clip

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; train or copy the model again")
    return open_clip.create_model(f"local-dir:{folder}", weights_only=True).eval()


def load_tokenizer(folder: Path):
    """The tokenizer of a model folder: list of str -> int64 tensor [n, context_length]."""
    import open_clip

    return open_clip.get_tokenizer(f"local-dir:{folder}")


def preprocessing(model) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """(image side in px, mean per channel, std per channel), the latter for pixel values in [0, 1]."""
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    return side, tuple(model.visual.preprocess_cfg["mean"]), tuple(model.visual.preprocess_cfg["std"])
