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
and its mean probability P, one when all get the same; `z` is the mean of logsumexp² of the router's logits; `entropy`
is LIMoE's (2206.02770), the mean entropy of a token's probabilities, and what that of the mean probabilities lacks to
log E/2, as if half of the experts were in use.

Mixtures are in the way of nothing that works with dense models: a model is exported with every expert on every token,
which gives the same.

Shape suffixes: N tokens that choose, T all tokens, D width, H hidden width, E experts, K choices of a token, A = K N
choices in the order in which they are served, C slots of an expert, S = E C slots.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from clipdr.errors import UserError
from clipdr.mixtures import KEY, check_mixture

ROUTER_STD = 0.02
# Parameter of the experts -> that of open_clip's MLP which each of them is a copy of.
COPY_OF = {"weight_in": "c_fc.weight", "bias_in": "c_fc.bias", "weight_out": "c_proj.weight", "bias_out": "c_proj.bias"}


class Real:
    """Which tokens of a tower's last batch choose experts, bool [batch, length]; None for all."""

    tokens_BL: Tensor | None = None


class MixtureOfExperts(nn.Module):
    """Experts with the shape of one MLP, Linear, activation, Linear, and a router. [..., D] -> [..., D].

    After a forward pass in training mode `losses` has the scalars balance, z and entropy, `load` [E] the share of all
    choices that each expert got, `dropped` the share that found no room, and `spread` the entropy of a token's
    probabilities in nats.
    """

    def __init__(self, mlp: nn.Sequential, settings: Mapping, real: Real) -> None:
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
        self.real = real
        self.losses: dict[str, Tensor] = {}
        self.load = self.dropped = self.spread = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.reshape(-1, x.shape[-1])
        if torch.compiler.is_exporting() or x.is_meta:
            return self._by_all(x_TD).reshape(x.shape)
        if self.real.tokens_BL is None:
            return self._mixed(x_TD).reshape(x.shape)
        chosen = self.real.tokens_BL.reshape(-1).nonzero().squeeze(1)
        mixed_ND = self._mixed(x_TD[chosen])
        return mixed_ND.new_zeros(x_TD.shape).index_copy(0, chosen, mixed_ND).reshape(x.shape)

    def _by_all(self, x_TD: Tensor) -> Tensor:
        """The same as in evaluation, by all experts on all tokens: no size depends on what is computed."""
        gate_TK, choice_TK = self._route(x_TD)
        gate_TE = gate_TK.new_zeros(len(x_TD), self.experts).scatter(1, choice_TK, gate_TK)
        if self.real.tokens_BL is not None:
            gate_TE = gate_TE * self.real.tokens_BL.reshape(-1, 1)
        out_ETD = self._experts(x_TD.expand(self.experts, *x_TD.shape))
        return (gate_TE.T[:, :, None] * out_ETD).sum(dim=0)

    def _mixed(self, x_ND: Tensor) -> Tensor:
        gate_NK, choice_NK = self._route(x_ND)
        expert_A, token_A, gate_A = _served(gate_NK, choice_NK, self.by_gate)
        place_A, load_E = _places(expert_A, self.experts)
        slots = self._slots(len(x_ND), load_E)
        fits = place_A < slots
        if self.training:
            self.load, self.dropped = load_E / len(expert_A), 1 - fits.float().mean()
        slot_A, token_A = (expert_A * slots + place_A)[fits], token_A[fits]
        in_SD = x_ND.new_zeros(self.experts * slots, x_ND.shape[1]).index_copy(0, slot_A, x_ND[token_A])
        out_SD = self._experts(in_SD.reshape(self.experts, slots, -1)).reshape(self.experts * slots, -1)
        weighed_AD = out_SD[slot_A] * gate_A[fits, None].to(out_SD.dtype)
        return torch.zeros_like(x_ND, dtype=out_SD.dtype).index_add(0, token_A, weighed_AD)

    def _route(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and experts of each token, [N, K]; the best first. In float32, whatever the model computes in."""
        with torch.autocast("cpu" if x_ND.is_meta else x_ND.device.type, enabled=False):
            logits_NE = nn.functional.linear(x_ND.float(), self.router.weight.float())
            p_NE = logits_NE.softmax(dim=1)
        gate_NK, choice_NK = p_NE.topk(self.top_k, dim=1)
        if self.training:
            self._set_losses(logits_NE, p_NE, choice_NK)
        if self.renormalise:
            gate_NK = gate_NK / gate_NK.sum(dim=1, keepdim=True)
        return gate_NK, choice_NK

    def _set_losses(self, logits_NE: Tensor, p_NE: Tensor, choice_NK: Tensor) -> None:
        share_E = nn.functional.one_hot(choice_NK, self.experts).float().sum(dim=1).mean(dim=0) / self.top_k
        mean_E, spread = p_NE.mean(dim=0), torch.special.entr(p_NE).sum(dim=1).mean()
        lacking = math.log(self.experts / 2) - torch.special.entr(mean_E).sum()
        self.losses = {
            "balance": self.experts * (share_E * mean_E).sum(),
            "z": logits_NE.logsumexp(dim=1).square().mean(),
            "entropy": spread + lacking.clamp_min(0),
        }
        self.spread = spread.detach()

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
        hidden = self.weight_in.shape[2]
        for name, theirs in zip(COPY_OF, mlp.parameters(), strict=True):
            mine = getattr(self, name)
            mine.copy_(for_each(theirs, self.experts))
            if noise and "bias" not in name:
                mine.add_(noise * theirs.std() * torch.randn(mine.shape, generator=generator))
        number = round(renewed * hidden)
        for expert in range(self.experts if number else 0):
            units = torch.randperm(hidden, generator=generator)[:number]
            for weight, axis in ((self.weight_in[expert], 1), (self.weight_out[expert], 0)):
                drawn = weight.mean() + weight.std() * torch.randn(weight.shape, generator=generator)
                weight.index_copy_(axis, units, drawn.index_select(axis, units))
            self.bias_in[expert, 0, units] = 0.0


def for_each(of_mlp: Tensor, experts: int) -> Tensor:
    """A Linear's weight [out, in] as [experts, in, out], or its bias [out] as [experts, 1, out]."""
    of_one = of_mlp[None] if of_mlp.ndim == 1 else of_mlp.T
    return of_one.expand(experts, *of_one.shape)


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
        settings: the keys `clipdr.mixtures.STRUCTURE`.
        name: what errors call the tower's configuration.

    Raises:
        UserError: a tower without such blocks, or settings that make no sense.
    """
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None:
        raise UserError(
            f"{name}.{KEY} needs a transformer of open_clip, and {type(tower).__name__} is none; take it out"
        )
    check_mixture(settings, f"{name}.{KEY}")
    if settings["first"] >= len(blocks):
        raise UserError(f"{name}.{KEY}.first is {settings['first']}, and there are {len(blocks)} blocks; lower it")
    real = Real()
    for block in blocks[settings["first"] :: settings["every"]]:
        if isinstance(block.mlp, MixtureOfExperts):
            raise UserError(f"{name}.{KEY}: the tower is a mixture already; upcycle a dense one")
        block.mlp = MixtureOfExperts(block.mlp, settings, real)
    if hasattr(tower, "token_embedding"):
        if tower.pool_type not in ("argmax", "eos"):
            raise UserError(f"{name}.{KEY}: pool_type {tower.pool_type} does not say where a text ends; take one out")
        # At the embedding and not at the tower: evaluation calls the tower's `forward` itself, past its hooks.
        tower.token_embedding.register_forward_pre_hook(partial(_mark_real, tower, real))


def _mark_real(text: nn.Module, real: Real, _: nn.Module, args: tuple[Tensor]) -> None:
    """Tell a text tower's mixtures which tokens stand before or at the end of their text."""
    (tokens_BL,) = args
    at_end_BL = tokens_BL if text.pool_type == "argmax" else tokens_BL == text.eos_id  # the end is the largest token
    end_B = at_end_BL.int().argmax(dim=1)
    real.tokens_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device) <= end_B[:, None]


def mixtures_of(module: nn.Module) -> Iterator[MixtureOfExperts]:
    """The mixtures of a model or tower, from the first block to the last."""
    return (inner for inner in module.modules() if isinstance(inner, MixtureOfExperts))


def auxiliary_losses(tower: nn.Module) -> dict[str, Tensor]:
    """The mean over a tower's mixtures of each loss of their last pass in training; nothing of a dense tower."""
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
            raise UserError(f"the dense model has no MLP of this width at {name}; start from one of the same towers")
        mixture.copy(theirs[name], noise, renewed, generator)
    rest = {key: value for key, value in own.items() if not key.startswith(inside)}
    if other := sorted({key for key in model.state_dict() if not key.startswith(inside)} ^ rest.keys()):
        raise UserError(f"the dense model is another network, first at {other[0]}; start from one of the same towers")
    model.load_state_dict(rest, strict=False)
