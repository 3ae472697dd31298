"""Command that times training steps; see `clipdr.train.timing`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.train.cost",
        "Time a few steps of each of several runs, in turns.",
        "python -m clipdr.train.cost --settings results/costs/<costs>/settings.json --tokenizer "
        "results/tokenizer/<tokenizer>/tokenizer --output costs.json --data results/views/<views>/arrays …",
    )
    parser.add_argument("--settings", type=cli.settings, required=True, help="settings.json of the costs")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="what each run reads, in their order")
    parser.add_argument("--tokenizer", type=Path, help="folder with the tokenizer's files (default: open_clip's own)")
    parser.add_argument("--teachers", type=Path, nargs="+", default=[], help="model folders of teachers asked online")
    parser.add_argument("--captioner", type=Path, help="model folder of the captioner asked online")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1, as a training has)")
    args = parser.parse_args()
    cli.set_threads(args.threads)
    from clipdr.train.timing import measure

    measure(args.settings, args.data, args.output, args.tokenizer, args.teachers, args.captioner)


if __name__ == "__main__":
    cli.run(main)
