"""What folding saves: latency of each tower's training form over its folded form, and of open_clip's over ours.

    python benchmarks/networks.py                          # MobileCLIP-S0, S1, S2, B: about 10 minutes
    python benchmarks/networks.py MobileCLIP-S1            # some of them

Torch on one thread, one image or text, random weights. The forms of a tower take turns; a ratio is taken within a turn,
so that a slow phase of the machine hits both of its sides. Medians of ROUNDS turns, with quartiles. Exits with 1 if
folding slowed a tower down by more than NOISE, by which two copies of one network may differ.
"""

import resource
import statistics
import sys
import time

NETWORKS = ("MobileCLIP-S0", "MobileCLIP-S1", "MobileCLIP-S2", "MobileCLIP-B")
OURS, TRAINING = "ours, folded", "ours, training form"
THEIRS, THEIRS_FOLDED = "open_clip's, training form", "open_clip's, folded"
ROUNDS, CALLS, SECONDS = 20, 3, 0.2  # turns; calls of a form in a turn, and seconds of it, at least
NOISE = 0.03


def forms(name: str) -> dict:
    """Form -> network in evaluation mode. open_clip has no MobileCLIP-S0."""
    from clipdr.deploy.probe import training_network
    from clipdr.models.fold import reparameterize

    ours = training_network(name)
    found = {OURS: reparameterize(ours), TRAINING: ours}
    if name != "MobileCLIP-S0":
        theirs = training_network(f"open_clip:{name}")
        found |= {THEIRS: theirs, THEIRS_FOLDED: reparameterize(theirs)}
    return found


def turn(work) -> float:
    """Median seconds of a call, after one that finds the caches filled by another form."""
    work()
    times, start = [], time.perf_counter()
    while len(times) < CALLS or time.perf_counter() - start < SECONDS:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def rounds(networks: dict, tower: str) -> dict[str, list[float]]:
    """Form -> seconds per call in each of ROUNDS turns, after one that is not counted."""
    import torch

    from clipdr.deploy.probe import random_inputs, tower_of

    towers = {form: tower_of(network, tower) for form, network in networks.items()}
    (x,) = random_inputs(towers[OURS], 1)
    times = {form: [] for form in towers}
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for form, net in towers.items():
                times[form].append(turn(lambda net=net: net(x)))
    return {form: values[1:] for form, values in times.items()}


def quartiles(times: dict[str, list[float]], form: str) -> list[float]:
    """First quartile, median and third quartile, over the turns, of `form` over ours, folded."""
    ratios = [a / b for a, b in zip(times[form], times[OURS], strict=True)]
    return statistics.quantiles(ratios, n=4, method="inclusive")


def cell(times: dict[str, list[float]], form: str) -> str:
    if form not in times:
        return "–"
    q1, median, q3 = quartiles(times, form)
    return f"{median:.2f} ({q1:.2f}–{q3:.2f})"


def main(names: list[str]) -> str | None:
    """Prints the table; returns what folding slowed down, if anything."""
    from clipdr import cli

    cli.set_threads(1)
    import open_clip
    import timm
    import torch

    print(f"torch {torch.__version__}, timm {timm.__version__}, open_clip {open_clip.__version__}, 1 thread, batch 1;")
    print(f"ratios to ours, folded: median (quartiles) of {ROUNDS} turns\n")
    print(f"| network | tower | {OURS} (ms) | {TRAINING} | {THEIRS} | {THEIRS_FOLDED} |")
    print("|---|---|---|---|---|---|")
    slowed = []
    for name in names:
        networks = forms(name)
        for tower in ("image", "text"):
            times = rounds(networks, tower)
            slowed += [f"{name}, {tower} tower"] if quartiles(times, TRAINING)[1] < 1 - NOISE else []
            cells = [cell(times, form) for form in (TRAINING, THEIRS, THEIRS_FOLDED)]
            line = [name, tower, f"{1e3 * statistics.median(times[OURS]):.1f}", *cells]
            print(f"| {' | '.join(line)} |", flush=True)
        del networks
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nlargest RSS {peak:.0f} MB: of the whole process, which holds all forms of a network at once")
    return f"folding slowed down: {'; '.join(slowed)}" if slowed else None


if __name__ == "__main__":
    if set(sys.argv[1:]) - set(NETWORKS):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:] or list(NETWORKS)))
