"""What several tests make in small."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

from clipdr.models.folder import load_tokenizer, random_model, write_folder
from clipdr.schema import defaults


def new_model(config: dict, tokenizer: Path, folder: Path, seed: int):
    """A folder without weights, its random model in training mode, and its tokenizer."""
    write_folder(config, tokenizer, folder)
    return random_model(config, seed, str(folder)), load_tokenizer(folder)


def in_processes(number: int, work: Callable, *args) -> list[int]:
    """Run `work(*args)` in processes that know each other as torchrun's do; their exit codes, -9 for a killed one.

    When one ends badly the others are killed, as torchrun does. The processes are forked from a server that has
    imported what takes long: torch cannot go on in a fork of a process whose autograd has threads, as this one's may.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["open_clip", "clipdr.train.run", "clipdr.losses.reinforced", "clipdr.models.build"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [context.Process(target=_child, args=(rank, number, port, work, args)) for rank in range(number)]
    for child in children:
        child.start()
    while any(child.exitcode is None for child in children):
        for child in children:
            child.join(0.05)
        if any(child.exitcode for child in children):
            for child in children:
                child.kill()
    return [child.exitcode for child in children]


def _child(rank: int, number: int, port: int, work: Callable, args: tuple) -> None:
    if number > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
    work(*args)


def run_settings(model_config: dict) -> dict:
    """A run of eight steps whose batches cross the borders of epochs: four pairs of six."""
    training = {"steps": 8, "batch_size": 4, "lr": 0.01, "min_lr": 0.0, "warmup": 2, "weight_decay": 0.1}
    training |= {"betas": [0.9, 0.95], "grad_clip": 1.0}
    return {
        "model": {"name": "tiny", "config": model_config},
        "data": {"dataset": "all", "augmentation": "strong", "captions": ["real", "syn"]},
        "objective": {"name": "reinforced", "lambda": 0.7, "teachers": ["small", "large"], "fidelity": "paper"},
        "training": defaults("training") | training,
        "seed": 0,
    }
