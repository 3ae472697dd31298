"""Command of the stage `train`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.train",
        "Train one student on materialised views of a reinforced dataset.",
        "python -m clipdr.train --settings results/runs/<run>/settings.json --views results/views/<views>/arrays "
        "--tokenizer results/tokenizer/<tokenizer>/tokenizer --output my-run/model",
    )
    parser.add_argument("--settings", type=cli.settings, required=True, help="the run's settings.json")
    parser.add_argument("--views", type=Path, required=True, help="materialised views, see `clipdr.data views`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with the tokenizer's files")
    parser.add_argument("--init", type=Path, help="model folder of the run to start from (default: random weights)")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    args = parser.parse_args()
    cli.set_threads(args.threads)
    from clipdr.train.run import train

    train(args.settings, args.views, args.tokenizer, args.output, args.init)


if __name__ == "__main__":
    cli.run(main)
