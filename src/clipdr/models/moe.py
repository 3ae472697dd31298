"""Mixtures of experts in the place of MLPs, and how a dense CLIP is made into one (CLIP-UP, arXiv 2502.00965).

The paper's code is not public and its text was not read: the layer is that of its neighbours (GShard, Switch, V-MoE,
Sparse Upcycling 2212.05055), of which each choice is a setting.

* A token chooses `top_k` experts by a softmax over all of them, in float32; the router has no bias. Gates are their
  probabilities, brought to a sum of one if `renormalise`.
* `capacity` counts the choices: all experts together have room for capacity · N tokens, an equal share each, so that
  with top_k 2 and capacity 2 every choice fits if experts are chosen evenly (GShard's factor; V-MoE's is this one /
  top_k). What finds no room is dropped, and the block's skip connection carries the token alone.
* All first choices go before all second ones; among them the earlier token, or with `priority: gate` the one with the
  larger gate (V-MoE's batch priority routing).
* In evaluation nothing is dropped, so that an output does not depend on what else is in the batch.
* Tokens behind a text's end choose no expert, and count in no loss.

Losses are means over the layers of a tower: `balance` is E Σ f_e P_e, of the share f of all choices that an expert gets
and its mean probability P, one when all get the same; `z` is the mean of logsumexp² of the router's logits.

Shape suffixes: N tokens that choose, T all tokens, D width, H hidden width, E experts, K choices of a token, A = K N
choices in the order in which they are served, C slots of an expert, S = E C slots.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from clipdr.errors import UserError

KEY = "moe"  # of a tower's configuration
DEFAULTS = {"top_k": 2, "capacity": 2.0, "renormalise": True, "priority": "order", "first": 1, "every": 2}
ROUTER_STD = 0.02


class MixtureOfExperts(nn.Module):
    """Experts with the shape of one MLP, Linear, activation, Linear, and a router. [..., D] -> [..., D].

    After a forward pass in training mode `losses` has the scalars balance and z, and after any `load` [E], the share of
    choices that each expert got, `dropped`, the share that found no room, and `entropy`, of the router in nats.
    """

    def __init__(self, mlp: nn.Sequential, settings: Mapping) -> None:
        super().__init__()
        first, self.act, last = mlp
        experts, width, hidden = settings["experts"], first.in_features, first.out_features
        self.experts, self.top_k, self.capacity = experts, settings["top_k"], settings["capacity"]
        self.renormalise, self.by_gate = settings["renormalise"], settings["priority"] == "gate"
        self.router = nn.Linear(width, experts, bias=False)
        nn.init.normal_(self.router.weight, std=ROUTER_STD)
        self.weight_in = nn.Parameter(torch.empty(experts, width, hidden))
        self.bias_in = nn.Parameter(torch.zeros(experts, 1, hidden))
        self.weight_out = nn.Parameter(torch.empty(experts, hidden, width))
        self.bias_out = nn.Parameter(torch.zeros(experts, 1, width))
        for weight in (self.weight_in, self.weight_out):  # as nn.Linear
            nn.init.uniform_(weight, -1 / math.sqrt(weight.shape[1]), 1 / math.sqrt(weight.shape[1]))
        self.real: Tensor | None = None  # bool [batch, length], which tokens choose; None for all
        self.losses: dict[str, Tensor] = {}
        self.load = self.dropped = self.entropy = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.reshape(-1, x.shape[-1])
        if self.real is None:
            return self._mixed(x_TD).reshape(x.shape)
        chosen = self.real.reshape(-1).nonzero().squeeze(1)
        return torch.zeros_like(x_TD).index_copy(0, chosen, self._mixed(x_TD[chosen])).reshape(x.shape)

    def _mixed(self, x_ND: Tensor) -> Tensor:
        gate_NK, choice_NK = self._route(x_ND)
        expert_A, token_A, gate_A = _served(gate_NK, choice_NK, self.by_gate)
        place_A, load_E = _places(expert_A, self.experts)
        slots = self._slots(len(x_ND), load_E)
        fits = place_A < slots
        self.load, self.dropped = load_E.detach() / len(expert_A), 1 - fits.float().mean().detach()
        slot_A, token_A = (expert_A * slots + place_A)[fits], token_A[fits]
        in_SD = x_ND.new_zeros(self.experts * slots, x_ND.shape[1]).index_copy(0, slot_A, x_ND[token_A])
        out_SD = self._experts(in_SD.reshape(self.experts, slots, -1)).reshape(self.experts * slots, -1)
        weighed_AD = out_SD[slot_A] * gate_A[fits, None].to(out_SD.dtype)
        return torch.zeros_like(x_ND, dtype=out_SD.dtype).index_add(0, token_A, weighed_AD)

    def _route(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and experts of each token, [N, K]; the best first. In float32, whatever the model computes in."""
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = nn.functional.linear(x_ND.float(), self.router.weight.float())
            p_NE = logits_NE.softmax(dim=1)
        gate_NK, choice_NK = p_NE.topk(self.top_k, dim=1)
        self.entropy = -(p_NE * p_NE.clamp_min(1e-30).log()).sum(dim=1).mean().detach()
        if self.training:
            share_E = nn.functional.one_hot(choice_NK, self.experts).float().sum(dim=1).mean(dim=0) / self.top_k
            balance = self.experts * (share_E * p_NE.mean(dim=0)).sum()
            self.losses = {"balance": balance, "z": logits_NE.logsumexp(dim=1).square().mean()}
        if self.renormalise:
            gate_NK = gate_NK / gate_NK.sum(dim=1, keepdim=True)
        return gate_NK, choice_NK

    def _slots(self, tokens: int, load_E: Tensor) -> int:
        """Of each expert: its share of the capacity, or in evaluation as many as the most wanted one needs."""
        if not self.training:
            return max(int(load_E.max()), 1)
        return max(math.ceil(self.capacity * tokens / self.experts), 1)

    def _experts(self, x_ECD: Tensor) -> Tensor:
        hidden_ECH = self.act(torch.baddbmm(self.bias_in, x_ECD, self.weight_in))
        return torch.baddbmm(self.bias_out, hidden_ECH, self.weight_out)

    @torch.no_grad()
    def copy(self, mlp: nn.Sequential, noise: float, renewed: float, generator: torch.Generator) -> None:
        """Make each expert a copy of an MLP.

        Args:
            noise: standard deviation of what is added to weights, as a share of their own.
            renewed: share of the hidden units that each expert draws anew, from a normal distribution with the mean and
                deviation of the weights (drop-upcycling).
            generator: of noise and of what is renewed.
        """
        first, _, last = mlp
        for mine, theirs in ((self.weight_in, first.weight.T), (self.weight_out, last.weight.T)):
            mine.copy_(theirs.expand_as(mine))
            if noise:
                mine.add_(noise * theirs.std() * torch.randn(mine.shape, generator=generator))
        self.bias_in.copy_(first.bias.expand_as(self.bias_in))
        self.bias_out.copy_(last.bias.expand_as(self.bias_out))
        number = round(renewed * first.out_features)
        for expert in range(self.experts if number else 0):
            units = torch.randperm(first.out_features, generator=generator)[:number]
            for weight, axis in ((self.weight_in[expert], 1), (self.weight_out[expert], 0)):
                drawn = weight.mean() + weight.std() * torch.randn(weight.shape, generator=generator)
                weight.index_copy_(axis, units, drawn.index_select(axis, units))
            self.bias_in[expert, 0, units] = 0.0


def _served(gate_NK: Tensor, choice_NK: Tensor, by_gate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Expert, token and gate of each choice [A], in the order in which they are served."""
    order_N = gate_NK[:, 0].argsort(descending=True, stable=True) if by_gate else slice(None)
    tokens_N = torch.arange(len(gate_NK), device=gate_NK.device)[order_N]
    columns = gate_NK.shape[1]
    return choice_NK[order_N].T.reshape(-1), tokens_N.repeat(columns), gate_NK[order_N].T.reshape(-1)


def _places(expert_A: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """How many choices of the same expert come before each one [A], and how many each expert has [E]."""
    load_E = torch.bincount(expert_A, minlength=experts)
    sorted_A = expert_A.argsort(stable=True)
    before_E = load_E.cumsum(0) - load_E
    rank_A = torch.arange(len(expert_A), device=expert_A.device) - before_E[expert_A[sorted_A]]
    return torch.empty_like(rank_A).index_copy(0, sorted_A, rank_A), load_E


def make_sparse(tower: nn.Module, settings: Mapping, name: str) -> None:
    """Put mixtures into some blocks of a tower in place, with weights of their own; the first block stays as it is.

    Args:
        tower: open_clip's VisionTransformer or TextTransformer.
        settings: `experts`, and what differs from `DEFAULTS`: every `every`-th block from `first` on becomes a mixture.
        name: what errors call the tower's configuration.

    Raises:
        UserError: a tower without such blocks, or settings that make no sense.
    """
    settings = {**DEFAULTS, **settings}
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None:
        raise UserError(
            f"{name}.{KEY} needs a transformer of open_clip, and {type(tower).__name__} is none; take it out"
        )
    _check(settings, len(blocks), f"{name}.{KEY}")
    for block in blocks[settings["first"] :: settings["every"]]:
        if isinstance(block.mlp, MixtureOfExperts):
            raise UserError(f"{name}.{KEY}: the tower is a mixture already; upcycle a dense one")
        block.mlp = MixtureOfExperts(block.mlp, settings)
    if hasattr(tower, "token_embedding"):
        tower.register_forward_pre_hook(_mark_real)


def _check(settings: Mapping, blocks: int, where: str) -> None:
    if settings["experts"] < 2:
        raise UserError(f"{where}.experts is {settings['experts']}; one expert is the dense MLP: write at least 2")
    if not 1 <= settings["top_k"] <= settings["experts"]:
        raise UserError(
            f"{where}.top_k is {settings['top_k']}; it must be between 1 and experts ({settings['experts']})"
        )
    if settings["top_k"] == 1 and settings["renormalise"]:
        raise UserError(
            f"{where}: with top_k 1 renormalised gates are all 1, and the router learns nothing; set one of them"
        )
    if settings["capacity"] <= 0:
        raise UserError(f"{where}.capacity is {settings['capacity']}, which drops every token; write a number above 0")
    if not 1 <= settings["first"] < blocks:
        raise UserError(f"{where}.first is {settings['first']}; of {blocks} blocks, the first one (0) stays dense")


def _mark_real(text: nn.Module, args: tuple[Tensor]) -> None:
    """Tell a text tower's mixtures which tokens stand before or at the end of their text."""
    (tokens_BL,) = args
    if text.pool_type == "argmax":  # the end has the largest number of all tokens
        end_B = tokens_BL.argmax(dim=1)
    elif text.pool_type == "eos":
        end_B = (tokens_BL == text.eos_id).int().argmax(dim=1)
    else:
        return
    real_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device) <= end_B[:, None]
    for mixture in mixtures_of(text):
        mixture.real = real_BL


def mixtures_of(module: nn.Module) -> Iterator[MixtureOfExperts]:
    """The mixtures of a model or tower, from the first block to the last."""
    return (inner for inner in module.modules() if isinstance(inner, MixtureOfExperts))


def auxiliary_losses(tower: nn.Module) -> dict[str, Tensor]:
    """The mean over a tower's mixtures of each loss of their last forward pass; nothing of a dense tower."""
    found = [mixture.losses for mixture in mixtures_of(tower)]
    return {key: torch.stack([losses[key] for losses in found]).mean() for key in (found[0] if found else ())}


@torch.no_grad()
def upcycle(model: nn.Module, dense: nn.Module, noise: float = 0.0, renewed: float = 0.0, seed: int = 0) -> None:
    """Give a model with mixtures the weights of one without: experts are copies, all else is taken over; routers stay.

    With renormalised gates, no noise and nothing renewed or dropped, it then computes what the dense model does.

    Args:
        model, dense: of the same configuration but for the mixtures.
        noise, renewed: see `MixtureOfExperts.copy`.
        seed: of what is drawn.

    Raises:
        UserError: the dense model is a mixture itself, or another network.
    """
    if next(mixtures_of(dense), None) is not None:
        raise UserError("upcycling starts from a dense model, and this one is a mixture already; name another one")
    generator, theirs, own = torch.Generator().manual_seed(seed), dict(dense.named_modules()), dense.state_dict()
    sparse = {name: module for name, module in model.named_modules() if isinstance(module, MixtureOfExperts)}
    inside = tuple(f"{name}." for name in sparse)
    for name, mixture in sparse.items():
        if name not in theirs or theirs[name][0].in_features != mixture.router.in_features:
            raise UserError(
                f"the dense model has no MLP of this width at {name}; start from a model of the same towers"
            )
        mixture.copy(theirs[name], noise, renewed, generator)
    rest = {key: value for key, value in own.items() if not key.startswith(inside)}
    if other := sorted({key for key in model.state_dict() if not key.startswith(inside)} ^ rest.keys()):
        raise UserError(
            f"the dense model is another network, first at {other[0]}; start from a model of the same towers"
        )
    model.load_state_dict(rest, strict=False)
