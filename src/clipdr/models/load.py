"""Reading a model folder: ours, or a published one."""

from pathlib import Path

from clipdr.models.folder import load_tokenizer, read_config, weights_file


def load_model(folder: Path, device: str = "cpu"):
    """The model of a folder in evaluation mode, float32.

    Raises:
        UserError: no configuration, or weights that are missing (open_clip would go on with random ones), unsafe, or of
            another model.
    """
    import torch

    from clipdr.models.build import build
    from clipdr.models.weights import load_pretrained

    folder = Path(folder)
    weights = weights_file(folder)
    config = read_config(folder)
    with torch.random.fork_rng(devices=[]):
        model = build(config, str(folder))
    load_pretrained(model, weights, str(folder))
    model.tokenizer = load_tokenizer(folder)
    return model.to(device).eval()
