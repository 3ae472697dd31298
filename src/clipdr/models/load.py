"""Reading a model folder: ours, or a published one."""

import zipfile
from pathlib import Path

from clipdr.errors import UserError
from clipdr.models.device import check_device
from clipdr.models.folder import load_tokenizer, read_config, weights_file


def load_model(folder: Path, device: str = "cpu"):
    """The model of a folder in evaluation mode, float32.

    Raises:
        UserError: no configuration, or weights that are missing (open_clip would go on with random ones), unsafe, or of
            another model; or no such device.
    """
    import torch

    from clipdr.models.build import build
    from clipdr.models.weights import load_pretrained

    check_device(device)
    folder = Path(folder)
    weights = weights_file(folder)
    _check_sums(weights)
    config = read_config(folder)
    with torch.random.fork_rng(devices=[]):
        model = build(config, str(folder))
    load_pretrained(model, weights, str(folder))
    model.tokenizer = load_tokenizer(folder)
    return model.to(device).eval()


def _check_sums(weights: Path) -> None:
    """torch's files are zip archives with a checksum of each tensor, which torch.load does not compare."""
    if not zipfile.is_zipfile(weights):  # safetensors
        return
    try:
        with zipfile.ZipFile(weights) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = str(error)
    if damaged:
        raise UserError(f"{weights} is damaged ({damaged}); train or copy the model again")
