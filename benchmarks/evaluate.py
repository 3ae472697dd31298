"""Ours against the `clip_benchmark` command: wall time, memory and numbers, over twelve tasks in one run.

    python benchmarks/evaluate.py            # MobileCLIP-S1 at full size, 2400 images: about 35 minutes on two cores
    python benchmarks/evaluate.py --images 20   # a quick look

Both read the same folders and the same random weights, in float32 with all threads. Tasks are of the suites' kinds: the
six ImageNet sets with a tenth of their classes (three have all of them, three a fifth of those) and all 80 templates,
CIFAR-10, EuroSAT and PCam with their own numbers of both, one task of several labels, two of retrieval with five
captions. Images are JPEGs of about 500 px. Which share of our time the towers run is measured in the process itself.

Exits with 1 if ours takes more than a third of the peer's wall time, or more memory, or gives other numbers, or if the
towers run for less than 80 % of our time.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SHARE_OF_PEER, TOWERS = 1 / 3, 0.8
OURS_BATCH = 8  # on a CPU, larger ones spend a third of the time on getting memory; the peer has its default
TOLERANCE = 1e-6  # of recalls and precisions; accuracies are equal
# Task -> what it is. Classes: number, and templates: number; tasks with one vocabulary share classes and templates.
CLASSIFY = {
    "imagenet": ("common", 100, 80),
    "imagenet-v2": ("common", 100, 80),
    "imagenet-sketch": ("common", 100, 80),
    "imagenet-a": ("common", 20, 80),
    "imagenet-o": ("common", 20, 80),
    "imagenet-r": ("common", 20, 80),
    "cifar10": ("cifar", 10, 18),
    "eurosat": ("eurosat", 10, 3),
    "pcam": ("pcam", 2, 2),
}
LABELS, RETRIEVAL = ["voc"], ["flickr", "coco"]
WORDS = ["red", "old", "small", "wet", "tall", "dog", "tram", "violin", "apple", "river", "house", "bird", "on", "near"]


def jpeg(random: np.random.Generator, label: int) -> bytes:
    """About 500 px, blurred noise whose colour depends on the label."""
    import io

    pixels = (
        random.integers(0, 256, (12, 16, 3)) * 0.6
        + np.array([[[label * 37 % 256, label * 91 % 256, label * 53 % 256]]]) * 0.4
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).resize((500, 375), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def write_tasks(folder: Path, number: int) -> list[dict]:
    """Twelve task folders of so many images; the entries of their suite."""
    from clipdr.pool.layout import write_classification, write_task
    from clipdr.pool.scenes import as_npy

    entries = []
    for seed, (name, (vocabulary, classes, templates)) in enumerate(CLASSIFY.items()):
        random = np.random.default_rng(seed)
        labels = random.integers(0, classes, number)
        samples = ({"jpg": jpeg(random, int(label)), "cls": str(label).encode()} for label in labels)
        names = [f"{vocabulary} {WORDS[n % 14]} {n}" for n in range(classes)]
        sentences = [f"a {WORDS[n % 14]} photo, number {n}, of a {{c}}." for n in range(templates)]
        write_classification(folder / f"wds_{name}", samples, names, sentences)
        entries.append({"key": name, "title": name, "kind": "classification", "main_metric": "acc1"})
    for seed, name in enumerate(LABELS, 100):
        random = np.random.default_rng(seed)
        targets = [((random.random(20) < 0.2) | (np.arange(20) == n % 20)).astype(np.int64) for n in range(number)]
        samples = ({"jpg": jpeg(random, int(target.argmax())), "npy": as_npy(target)} for target in targets)
        names = [f"voc {word}" for word in (WORDS * 2)[:20]]
        write_classification(folder / f"wds_{name}", samples, names, ["a photo of a {c}."], "multilabel")
        entries.append({"key": name, "title": name, "kind": "multilabel", "main_metric": "mean_average_precision"})
    for seed, name in enumerate(RETRIEVAL, 200):
        random = np.random.default_rng(seed)
        captions = [[" ".join(random.choice(WORDS, 8)) for _ in range(5)] for _ in range(number)]
        samples = ({"jpg": jpeg(random, n), "txt": "\n".join(own).encode()} for n, own in enumerate(captions))
        write_task(folder / f"wds_{name}", samples, "retrieval")
        entries.append({"key": name, "title": name, "kind": "retrieval", "main_metric": "mean_recall@1"})
    return entries


def spread(model, number: int = 32):
    """The model with batch norms that have seen images: with those of fresh weights all embeddings are nearly one, and
    ranks are a matter of rounding."""
    import io

    import torch

    random = np.random.default_rng(0)
    pictures = [Image.open(io.BytesIO(jpeg(random, n))).resize((256, 256)) for n in range(number)]
    pixels = torch.stack([torch.from_numpy(np.asarray(p, np.float32) / 255).permute(2, 0, 1) for p in pictures])
    for module in model.visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all that it sees
            module.reset_running_stats()
    with torch.no_grad():
        model.visual.train()(pixels)
    return model.eval()


def timed(command: list, folder: Path) -> tuple[float, float]:
    """Seconds and GB at the peak, of a process and its children."""
    start = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:4]} failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    return time.monotonic() - start, usage.ru_maxrss / 1e6


def peer(model: Path, tasks: Path, folder: Path) -> tuple[dict, float, float]:
    """Metrics of each task by the command, seconds, and GB."""
    found, seconds, memory = {}, 0.0, 0.0
    for names, options in (
        ([*CLASSIFY, *LABELS], ["--task", "zeroshot_classification"]),
        (RETRIEVAL, ["--task", "zeroshot_retrieval", "--recall_k", 1, 5, 10]),
    ):
        command = [sys.executable, "-m", "clip_benchmark.cli", "eval", "--dataset", *(f"wds/{name}" for name in names)]
        command += ["--dataset_root", f"{tasks}/wds_{{dataset_cleaned}}", "--model", f"local-dir:{model}"]
        command += ["--pretrained", "", "--no_amp", "--num_workers", 1, "--batch_size", 64, "--quiet", *options]
        took, peak = timed([*command, "--output", f"{folder}/{{dataset}}.json"], folder)
        seconds, memory = seconds + took, max(memory, peak)
        found |= {name: json.loads((folder / f"{name}.json").read_text())["metrics"] for name in names}
    return found, seconds, memory


def ours(model: Path, tasks: Path, entries: list[dict], folder: Path, threads: int) -> tuple[dict, float, float, float]:
    """The same by ours, and the share of its time that towers run."""
    settings = folder / "settings.json"
    settings.write_text(json.dumps({"tasks": entries, "batch_size": OURS_BATCH}))
    command = [sys.executable, __file__, "--towers", folder / "towers.json"]
    command += ["suite", "--model", model, "--tasks", tasks, "--settings", settings, "--threads", threads]
    took, peak = timed([*command, "--output", folder / "scores"], folder)
    lines = (folder / "scores/records.jsonl").read_text().splitlines()
    found = {record["key"]: record["metrics"] for record in map(json.loads, lines)}
    return found, took, peak, json.loads((folder / "towers.json").read_text()) / took


def evaluate_timed(towers: Path, arguments: list[str]) -> None:
    """The command of ours, with the seconds that towers run."""
    from clipdr import cli
    from clipdr.evaluate import __main__ as command
    from clipdr.evaluate import encoder

    spent, forward = [], encoder._forward

    def watched(*args):
        start = time.monotonic()
        found = forward(*args)
        spent.append(time.monotonic() - start)
        return found

    encoder._forward = watched
    sys.argv = ["evaluate", *arguments]
    cli.run(command.main)
    towers.write_text(json.dumps(sum(spent)))


def differences(mine: dict, theirs: dict) -> list[str]:
    """Metrics that are not the peer's."""
    wrong = []
    for name, metrics in theirs.items():
        limit = 0.0 if name in CLASSIFY else TOLERANCE
        for metric, value in metrics.items():
            if not math.isnan(value) and abs(mine[name][metric] - value) > limit:
                wrong.append(f"{name}: {metric} is {mine[name][metric]}, the peer's {value}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="of each task (default %(default)s)")
    parser.add_argument("--model", default="MobileCLIP-S1", help="of config/models (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both (default %(default)s)")
    args = parser.parse_args()
    from clipdr.model_files import load_models
    from clipdr.models.folder import random_model, save_weights, write_folder

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = load_models(Path(__file__).parents[1])[args.model]
        for name in ("model", "tasks", "peer", "ours"):
            (folder / name).mkdir()
        write_folder(config, None, folder / "model")
        save_weights(spread(random_model(config, 0, args.model)), folder / "model")
        entries = write_tasks(folder / "tasks", args.images)
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
        mine, our_time, our_memory, share = ours(
            folder / "model", folder / "tasks", entries, folder / "ours", args.threads
        )
        theirs, time_, memory = peer(folder / "model", folder / "tasks", folder / "peer")
    wrong = differences(mine, theirs)
    print(f"{args.model}, {len(entries)} tasks of {args.images} images, {args.threads} threads")
    print("| | wall s | peak GB |\n|---|---|---|")
    print(f"| clip_benchmark | {time_:.0f} | {memory:.2f} |\n| ours | {our_time:.0f} | {our_memory:.2f} |")
    print(f"ratio of wall times {our_time / time_:.3f} (limit {SHARE_OF_PEER:.3f}); towers run {share:.0%} of our time")
    print("\n".join(wrong) or "all numbers are the same")
    sys.exit(bool(wrong) or our_time > SHARE_OF_PEER * time_ or our_memory > memory or share < TOWERS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--towers"]:
        evaluate_timed(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
