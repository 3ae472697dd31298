"""python -m clipdr.deploy: count, export and time networks; without a command, it counts."""

import argparse
import sys
from pathlib import Path

from clipdr import cli

NAME = "name of config/models, or of open_clip"
WEIGHTS = "published file of weights"


def main() -> None:
    args = _arguments(sys.argv[1:] or ["counts"])
    args.run(args)


def _counts(args) -> None:
    from clipdr.deploy.counts import count_all, markdown
    from clipdr.model_files import load_models
    from clipdr.schema import REPOSITORY

    print(markdown(count_all(args.model or load_models(REPOSITORY), args.output, args.table)))


def _work(args) -> None:
    from clipdr.deploy.work import measure

    measure(args.settings, args.output)


def _export(args) -> None:
    cli.set_threads(1)
    from clipdr.deploy.export import export

    export(args.model, args.output, args.pretrained)


def _latency(args) -> None:
    cli.set_threads(args.threads)
    from clipdr.deploy.latency import measure

    measure(args.model, args.export, args.output, args.threads, args.runs)


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = cli.parser(
        "clipdr.deploy",
        "Networks of config/models and of open_clip. Without a command: counts, of all of config/models.",
        "python -m clipdr.deploy counts --model MobileCLIP-S0 ViT-B-16",
    )
    commands = parser.add_subparsers(required=True, metavar="counts|work|export|latency")
    counts = cli.command(
        commands,
        "counts",
        _counts,
        "Print a table of parameters and multiply-accumulates of both towers.",
        "python -m clipdr.deploy counts --output my-counts.json --table my-counts",
    )
    counts.add_argument(
        "--model", nargs="+", action="extend", metavar="NAME", help=f"{NAME} (default: all of config/models)"
    )
    counts.add_argument("--output", type=Path, help="JSON file to write")
    counts.add_argument("--table", type=Path, help="path without ending; .csv, .md and .tex are written")
    work = cli.command(
        commands,
        "work",
        _work,
        "Count what the runs of a table have to compute.",
        "python -m clipdr.deploy work --settings results/work/<work>/settings.json --output work.json",
    )
    work.add_argument("--settings", type=cli.settings, required=True, help="settings.json of the work")
    work.add_argument("--output", type=Path, required=True, help="JSON file to write")
    export = cli.command(
        commands,
        "export",
        _export,
        "Write the towers of a folded model for ONNX Runtime and Core ML.",
        "python -m clipdr.deploy export --model MobileCLIP-S0 --pretrained mobileclip_s0.pt --output exported/s0",
    )
    export.add_argument("--model", required=True, metavar="NAME", help=NAME)
    export.add_argument("--pretrained", type=Path, help=f"{WEIGHTS} (default: random weights)")
    export.add_argument("--output", type=Path, required=True, help="folder that receives the networks")
    latency = cli.command(
        commands,
        "latency",
        _latency,
        "Time the towers of an exported model on this computer.",
        "python -m clipdr.deploy latency --model MobileCLIP-S0 --export exported/s0 --output latency.json",
    )
    latency.add_argument("--model", required=True, metavar="NAME", help=NAME)
    latency.add_argument("--export", type=Path, required=True, help="folder that `export` wrote")
    latency.add_argument("--threads", type=int, default=1, help="threads (default %(default)s)")
    latency.add_argument(
        "--runs", type=int, default=100, help="timed runs of each tower, at least (default %(default)s)"
    )
    latency.add_argument("--output", type=Path, required=True, help="JSON file to write")
    return parser.parse_args(words)


if __name__ == "__main__":
    cli.run(main)
