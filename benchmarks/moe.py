"""A mixture of experts against an MLP with as many active multiplications, and against st-moe-pytorch.

Forward and backward of one layer, in turns, so that a slow phase of the machine hits all; medians. The peer is
installed where it is in nobody's way, and found there:

    python -m pip install --no-deps --target peer st-moe-pytorch==0.1.8 einops beartype colt5-attention local-attention
    PYTHONPATH=peer python benchmarks/moe.py
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipdr.models.moe import MixtureOfExperts, Real
from clipdr.schema import defaults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="of 197 tokens each, as of a ViT-B/16 (%(default)s)")
    parser.add_argument("--width", type=int, default=768, help="(%(default)s)")
    parser.add_argument("--experts", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--top-k", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settings = defaults("mixture") | {"experts": args.experts, "top_k": args.top_k, "capacity": float(args.top_k)}
    ours = MixtureOfExperts(mlp(args.width, 4), settings, Real())
    layers = {
        "dense, equal active work": step_of(mlp(args.width, 4 * args.top_k), lambda out: out),
        "ours": step_of(ours, lambda out: out),
        "st-moe-pytorch": step_of(peer(args), lambda out: out[0]),
    }
    x_BLD = torch.randn(args.images, 197, args.width)
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(args.rounds + 1):
        for name, step in layers.items():
            start = time.perf_counter()
            step(x_BLD)
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(found[1:]) for name, found in times.items()}
    dense = seconds["dense, equal active work"]
    print(
        json.dumps(
            {
                **{f"{name} (s)": round(value, 4) for name, value in seconds.items()},
                **{f"{name} over dense": round(value / dense, 3) for name, value in seconds.items() if value != dense},
                "dropped by ours": round(float(ours.dropped), 3),
                "memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
            indent=1,
        )
    )


def mlp(width: int, times: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, times * width), nn.GELU(), nn.Linear(times * width, width))


def peer(args) -> nn.Module:
    """The same experts behind its own router; its capacity counts choices, as ours does."""
    try:
        from st_moe_pytorch import MoE
    except ImportError as error:
        raise SystemExit(f"error: {error}; install the peer as `python benchmarks/moe.py --help` says") from None
    experts = nn.ModuleList([mlp(args.width, 4) for _ in range(args.experts)])
    number = {"dim": args.width, "num_experts": args.experts, "gating_top_n": args.top_k}
    return MoE(**number, capacity_factor_train=float(args.top_k), threshold_train=0.0, experts=experts)


def step_of(layer: nn.Module, output: Callable) -> Callable[[Tensor], None]:
    def step(x_BLD: Tensor) -> None:
        layer.zero_grad()
        output(layer(x_BLD.clone().requires_grad_())).square().mean().backward()

    return step


if __name__ == "__main__":
    main()
