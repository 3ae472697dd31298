"""Networks and inputs with which an export is compared and a latency measured."""

from pathlib import Path

import torch
from torch import Tensor, nn

from clipdr.errors import UserError
from clipdr.models.build import build, image_side
from clipdr.models.fold import reparameterize
from clipdr.models.registry import configuration
from clipdr.models.weights import load_pretrained

TOWERS = {"image": "image", "text": "tokens"}  # tower -> name of its input
INPUTS = 8
SEED = 0


def inference_network(name: str, pretrained: Path | None = None) -> nn.Module:
    """The reparameterized network, in evaluation mode. Random weights are always the same, and `disturb`ed.

    Raises UserError for a network that is unknown or has another text tower than open_clip's, or a file of weights that
    does not fit.
    """
    return reparameterize(training_network(name, pretrained))


def training_network(name: str, pretrained: Path | None = None) -> nn.Module:
    """`inference_network` before it is folded, in evaluation mode."""
    config = configuration(name)
    if "multimodal_cfg" in config["model_cfg"] or "hf_model_name" in config["model_cfg"]["text_cfg"]:
        raise UserError(
            f"{name}: only CLIP with open_clip's own text tower can be exported, not CoCa or Hugging Face's"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build(config, name).eval()
        if pretrained is None:
            disturb(model)
    if pretrained is not None:
        load_pretrained(model, pretrained, name)
    return model


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    """Change a randomly initialised model so that every part of it changes the output, in place, in evaluation mode.

    At the start layer scales are 1e-5, norms do nothing and biases are zero, so that a lost block or a norm folded
    wrongly would change nothing that can be measured. Here gains, biases and layer scales are drawn from torch's global
    generator, and batch norms take their statistics from a few random inputs, so that the signal neither dies out nor
    grows. For random weights only: it destroys trained ones.
    """
    for tower in (model.visual, model.text):
        norms = [module for module in tower.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        gains = {id(norm.weight) for norm in norms} | {id(norm.bias) for norm in norms}
        for parameter in tower.parameters():
            if id(parameter) in gains or (parameter.numel() > 1 and parameter.min() == parameter.max()):
                _redraw(parameter)
        _settle(tower, norms, random_inputs(tower, INPUTS))


def _redraw(parameter: Tensor) -> None:
    """Biases (zeros) around zero, gains (ones) around one, layer scales (a small constant) below one half."""
    start = parameter.flatten()[0].item()
    if start == 0:
        parameter.normal_(std=0.1)
    else:
        parameter.uniform_(*((0.5, 1.5) if start == 1 else (0.1, 0.5)))


def _settle(tower: nn.Module, norms: list[nn.Module], inputs: list[Tensor]) -> None:
    """Set the running statistics of the batch norms to those of the inputs."""
    if not norms:
        return
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the statistics of this batch, not a moving average
        norm.train()
    tower(torch.cat(inputs))
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
        norm.eval()


def random_inputs(tower: nn.Module, n: int) -> list[Tensor]:
    """n different inputs of a tower, each a batch of one: blurred noise, or texts of different lengths.

    Noise of single pixels would not do: a network averages it away, and gives all such images nearly one embedding.
    """
    if not hasattr(tower, "context_length"):
        side, random = image_side(tower), torch.Generator().manual_seed(SEED)
        coarse = torch.rand(n, 3, 6, 6, generator=random)
        img = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
        return list(img.split(1))
    return [_random_text(tower, position) for position in torch.linspace(1, tower.context_length - 1, n).int().tolist()]


def _random_text(text: nn.Module, end: int) -> Tensor:
    """int64 tokens [1, context_length]: words, the end of the text at position `end`, padding.

    The end is the largest id for the pooling by argmax, and `eos_id` for the pooling by that; neither is a word.
    """
    last = text.eos_id if text.pool_type == "eos" else text.vocab_size - 1
    words = torch.tensor([i for i in range(1, text.vocab_size - 1) if i not in (text.eos_id, text.pad_id)])
    random = torch.Generator().manual_seed(SEED + end)
    tokens = torch.full((1, text.context_length), text.pad_id)
    tokens[0, :end] = words[torch.randint(len(words), (end,), generator=random)]
    tokens[0, end] = last
    return tokens


def tower_of(model: nn.Module, tower: str) -> nn.Module:
    """`model.visual` for "image", `model.text` for "text"."""
    return model.visual if tower == "image" else model.text
