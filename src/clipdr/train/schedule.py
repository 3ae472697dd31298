"""Learning rate and weight decay."""

import math

import torch
from torch import nn

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
GAINS = ("gamma", "logit_scale", "class_embedding", "cls_emb", "cls_token")  # last parts of names


def learning_rate(step: int, settings: dict) -> float:
    """Linear warm-up over `warmup` steps, `constant` steps at `lr`, then a cosine down to `min_lr`."""
    if step < settings["warmup"]:
        return settings["lr"] * (step + 1) / settings["warmup"]
    start = settings["warmup"] + settings["constant"]
    share = max(step - start, 0) / max(settings["steps"] - start, 1)
    return settings["min_lr"] + (settings["lr"] - settings["min_lr"]) * (1 + math.cos(math.pi * share)) / 2


def build_optimizer(modules: nn.Module, settings: dict) -> torch.optim.Optimizer:
    """AdamW, with weight decay where `decays`."""
    spared, decayed = [], []
    for module in modules.modules():
        for name, parameter in module.named_parameters(recurse=False):
            (decayed if decays(module, name, parameter) else spared).append(parameter)
    # In the order of the modules' parameters, and each once: parameters may be shared.
    order = {id(parameter): n for n, parameter in enumerate(modules.parameters())}
    groups = [
        {"params": sorted({id(p): p for p in group}.values(), key=lambda p: order[id(p)]), "weight_decay": decay}
        for group, decay in ((decayed, settings["weight_decay"]), (spared, 0.0))
    ]
    options = {"lr": settings["lr"], "betas": tuple(settings["betas"]), "eps": settings["eps"]}
    return torch.optim.AdamW(groups, **options, fused=True)


def decays(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter of a module decays: matrices and kernels do; biases, norms and gains do not.

    By name and type, not by shape alone: a layer scale of shape [C, 1] is a gain, and the biases of several experts in
    one tensor are biases.
    """
    gain = isinstance(module, NORMS) or name in GAINS or "bias" in name or "layer_scale" in name
    return parameter.ndim >= 2 and not gain
