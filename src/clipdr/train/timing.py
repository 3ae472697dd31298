"""What a training step costs: a few steps of several runs, timed in turns.

Nothing is trained to its end. Decided here:
* The runs take turns, so that a slow phase of the machine hits all of them; a first round is not counted.
* The time of a step is that of everything that a training run waits for: its batch, with what is made online, and the
  optimizer's step. How long it waited for the batch stands beside it.
* Where several processes share a batch, one is timed on its share of it, alone.
* Workers of a stream read ahead while others have their turn, two batches each: a turn must have many more steps than
  that, or their time is hidden.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import torch

from clipdr.deploy.latency import device
from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.models.folder import write_folder
from clipdr.progress import progress
from clipdr.train.loop import Guard, take_step
from clipdr.train.parallel import World, join, wrap
from clipdr.train.run import MadeFrom, prepare, recipe
from clipdr.train.schedule import build_optimizer


def measure(
    settings: dict,
    data: Sequence[Path],
    output: Path,
    tokenizer: Path | None = None,
    teachers: Sequence[Path] = (),
    captioner: Path | None = None,
) -> None:
    """Time the runs of `settings` and write a JSON file.

    It has `device`, `threads`, `torch`, `steps` and, per run, `row`, `batch_size`, and lists of `seconds` and `waited`
    (for batches), of a step, one number per round.

    Args:
        settings: `runs`, each a `row` and the `settings` of a run; `steps` of a turn, and `rounds`.
        data: what each run reads, in their order; see `clipdr.train.run.train`.
        teachers, captioner: model folders of those that some runs ask at every step.
    """
    runs = settings["runs"]
    if len(data) != len(runs):
        raise UserError(f"--data names {len(data)} folders for {len(runs)} runs; give one for each, in their order")
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        turns = []
        for number, (run, folder) in enumerate(zip(runs, data, strict=True)):
            asked = run["settings"].get("online", {})
            made = MadeFrom(
                folder,
                tokenizer,
                teachers=teachers if "teachers" in asked else (),
                captioner=captioner if "captions" in asked else None,
            )
            turns.append(stepper(run["settings"], made, run["row"], Path(scratch) / str(number)))
        times: list[list[tuple[float, float]]] = [[] for _ in runs]
        for _ in progress(range(settings["rounds"] + 1), "rounds of costs", settings["rounds"] + 1):
            for turn, found in zip(turns, times, strict=True):
                steps = [turn() for _ in range(settings["steps"])]
                found.append(tuple(sum(column) / len(steps) for column in zip(*steps, strict=True)))
    lines = [
        {
            "row": run["row"],
            "batch_size": run["settings"]["training"]["batch_size"],
            "seconds": [seconds for seconds, _ in found[1:]],
            "waited": [waited for _, waited in found[1:]],
        }
        for run, found in zip(runs, times, strict=True)
    ]
    result = {"device": device(), "threads": threads, "torch": torch.__version__, "steps": settings["steps"]}
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(result | {"runs": lines}, indent=1) + "\n")


def stepper(settings: dict, made: MadeFrom, row: str, folder: Path) -> Callable[[], tuple[float, float]]:
    """A function that takes a run's next step, and says how long it took and how much of that was waiting, in seconds.

    `folder` receives the student's configuration.
    """
    processes = settings["training"]["processes"]
    share = {"batch_size": settings["training"]["batch_size"] // processes, "processes": 1}
    settings = {**settings, "training": {**settings["training"], **share}}
    training = recipe(settings)
    world = join(training["device"], 1)
    write_folder(settings["model"]["config"], made.tokenizer, folder)
    student, objective, source = prepare(settings, made, folder, world)
    student, objective = student.to(world.device).train(), objective.to(world.device).train()
    optimizer = build_optimizer(torch.nn.ModuleList([student, objective]), training)
    batches, guard, steps = source.batches(0), Guard(row, folder), cycle(range(training["steps"]))
    run = (wrap(student, world), wrap(objective, world))

    def step() -> tuple[float, float]:
        began = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - began
        take_step(*run, optimizer, batch, next(steps), training, guard, world)
        _finish(world)
        return time.perf_counter() - began, waited

    return step


def _finish(world: World) -> None:
    """Until the device has done what it was told."""
    if world.device.type != "cpu":
        torch.accelerator.synchronize(world.device)
