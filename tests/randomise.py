"""Weights under which every branch of a network counts, as after training.

Fresh ones hide mistakes: layer scales of 1e-5 switch the blocks off, and every batch norm is the same identity.
"""

import torch
from torch import Tensor, nn

BATCH_NORMS = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def randomise(network: nn.Module, seed: int, *inputs: Tensor) -> nn.Module:
    """Random layer scales and batch norms, in place; the network ends in evaluation mode and is returned.

    Layer scales lie between 0.5 and 1.5, gains too. Running statistics are those of `inputs` and then moved away from
    them, by up to half a standard deviation and a factor of two in the variance: numbers that are plainly random let
    the activations of forty blocks explode.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS)]
    for name, parameter in network.named_parameters():
        if "layer_scale" in name:
            parameter.uniform_(0.5, 1.5, generator=random)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=random)
        norm.bias.uniform_(-0.5, 0.5, generator=random)
        norm.momentum = 1.0  # the statistics of the last batch alone
    network.train()
    network(*inputs)
    for norm in norms:
        shift, factor = (torch.empty_like(norm.running_var).uniform_(-1, 1, generator=random) for _ in range(2))
        norm.running_mean += 0.5 * shift * norm.running_var.sqrt()
        norm.running_var *= 2**factor
        norm.momentum = 0.1
    return network.eval()


def distance(first: Tensor, second: Tensor) -> float:
    """|first - second| / |second|."""
    return float((first - second).norm() / second.norm())
