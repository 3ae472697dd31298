"""Latency of both towers of an exported network on this machine's CPU: one image or one text, as the paper measures it.

Decided here:
* Two backends: ONNX Runtime on the exported files, and torch on the reparameterized network in inference mode.
* They take turns, block by block, so that a slow phase of the machine hits both. A block lasts `BLOCK` seconds and
  starts with calls that are not counted, because the other backend has just filled the caches.
* The median over single calls, and the quartiles: what else runs on the machine makes some calls slow, none fast.
* Random weights: the time does not depend on them.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from clipdr.deploy.export import REPORT, onnx_session
from clipdr.deploy.probe import TOWERS, inference_network, random_inputs, tower_of
from clipdr.errors import UserError
from clipdr.files import atomic_file, sha256_file
from clipdr.progress import log

MIN_RUNS = 30  # for quartiles
SECONDS = 2.0  # at least, per tower and backend
LONG = 20.0  # seconds after which MIN_RUNS are enough, for networks of several hundred milliseconds
BLOCK = 0.1  # seconds
WARM_UP = 0.5  # seconds, per backend, at the start


def measure(name: str, export_dir: Path, output: Path, threads: int = 1, runs: int = 100) -> dict:
    """Measure a network and write the JSON file; returns its content.

    Args:
        name: of config/models or of open_clip.
        export_dir: folder that `clipdr.deploy.export` made of it.
        output: JSON file to write.
        threads: of an operator, for both backends.
        runs: calls per tower and backend, at least `MIN_RUNS`; there are more if they take less than `SECONDS`, and
            fewer if they take more than `LONG`.

    Returns:
        `network`, `device`, `threads`, `batch_size`, `versions`, and `image` and `text`, each with `onnxruntime` and
        `torch`, each with `median_ms`, `q1_ms`, `q3_ms` (milliseconds per call) and `runs` (calls that were counted).

    Raises:
        UserError: too few runs or threads, an unknown network, no export, one of another network, or files that are not
            those that were compared with torch.
    """
    if runs < MIN_RUNS:
        raise UserError(f"--runs is {runs}; at least {MIN_RUNS} are needed for quartiles")
    if threads < 1:
        raise UserError(f"--threads is {threads}; it must be 1 or more")
    import onnxruntime

    files = exported_files(name, Path(export_dir))
    torch.set_num_threads(threads)
    model = inference_network(name)
    result = {
        "network": name,
        "device": device(),
        "threads": threads,
        "batch_size": 1,
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
    for tower in TOWERS:
        calls = _calls(model, tower, files[tower], threads)
        times = alternate(calls, runs, SECONDS)
        result[tower] = {backend: summary(values) for backend, values in times.items()}
        log.info(
            "%s, %s tower: %s", name, tower, ", ".join(f"{b} {s['median_ms']:.2f} ms" for b, s in result[tower].items())
        )
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    return result


def exported_files(name: str, folder: Path) -> dict[str, Path]:
    """Tower -> ONNX file of an export of the network, untouched since it was compared with torch.

    Raises UserError naming the file that is missing, of another network, or changed.
    """
    again = f"delete {folder} and export {name} again"
    try:
        report = json.loads((folder / REPORT).read_text())
        network, entries = report["network"], {tower: report[tower]["onnx"] for tower in TOWERS}
        digests = {tower: entry["sha256"] for tower, entry in entries.items()}
    except OSError:
        raise UserError(f"{folder / REPORT} is missing; export {name} first") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / REPORT} is no report of an export; {again}") from None
    if network != name:
        raise UserError(f"{folder / REPORT} is of network {network!r}, not {name!r}; give the folder of {name}")
    files = {tower: folder / f"{tower}.onnx" for tower in TOWERS}
    for tower, path in files.items():
        if not path.is_file():
            raise UserError(f"{path} is missing; {again}")
        if sha256_file(path) != digests[tower]:
            raise UserError(f"{path} is not the file that was compared with torch; {again}")
    return files


def _calls(model: torch.nn.Module, tower: str, path: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Backend -> a call of the tower on one input."""
    net, session = tower_of(model, tower), onnx_session(path, threads)
    (x,) = random_inputs(net, 1)
    feed = {TOWERS[tower]: x.numpy()}

    @torch.inference_mode()
    def run_torch():
        return net(x)

    return {"onnxruntime": lambda: session.run(None, feed), "torch": run_torch}


def alternate(calls: dict[str, Callable[[], object]], runs: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of single calls, by name; the names take turns until each has `runs` calls and `seconds` of them."""

    def enough(values: list[float]) -> bool:
        return sum(values) >= seconds and (len(values) >= runs or (len(values) >= MIN_RUNS and sum(values) >= LONG))

    sizes = {name: max(1, round(BLOCK / _warm_up(call))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    while not all(map(enough, times.values())):
        for name, call in calls.items():
            for _ in range(1 + sizes[name] // 10):
                call()
            times[name] += [_timed(call) for _ in range(sizes[name])]
    return times


def _warm_up(call: Callable[[], object]) -> float:
    """Seconds of the fastest call, after the first ones have found memory and kernels."""
    times = [_timed(call), _timed(call)]
    while sum(times) < WARM_UP:
        times.append(_timed(call))
    return min(times)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e9


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds, and the number of calls."""
    q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median_ms": 1e3 * median, "q1_ms": 1e3 * q1, "q3_ms": 1e3 * q3, "runs": len(seconds)}


def device() -> str:
    """The CPU's model and the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}"
