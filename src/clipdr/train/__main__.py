"""Command of the stage `train`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.train",
        "Train one student on a reinforced dataset. Several processes: torchrun --nproc-per-node N -m clipdr.train …",
        "python -m clipdr.train --settings results/runs/<run>/settings.json --data results/views/<views>/arrays "
        "--tokenizer results/tokenizer/<tokenizer>/tokenizer --output my-run/model",
    )
    parser.add_argument("--settings", type=cli.settings, required=True, help="the run's settings.json")
    parser.add_argument(
        "--data", type=Path, required=True, help="materialised views, or shards of rows if `source` is stream"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder with the tokenizer's files (default: open_clip's own)")
    parser.add_argument("--init", type=Path, help="model folder of the run to start from (default: random weights)")
    parser.add_argument("--teachers", type=Path, nargs="+", default=[], help="model folders of teachers asked online")
    parser.add_argument("--captioner", type=Path, help="model folder of the captioner asked online")
    parser.add_argument("--tasks", type=Path, help="folder of the tasks that the run is scored on on the way")
    parser.add_argument("--text-tower", type=Path, help="model folder of the teacher whose text tower the student has")
    parser.add_argument("--corpus", type=Path, help="texts that do not belong to the images, of clipdr.corpus")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's files (default: none)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    args = parser.parse_args()
    cli.set_threads(args.threads)
    from clipdr.train.run import train

    train(
        args.settings,
        args.data,
        args.output,
        args.tokenizer,
        args.init,
        args.tensorboard,
        args.teachers,
        args.captioner,
        args.tasks,
        args.text_tower,
        args.corpus,
    )


if __name__ == "__main__":
    cli.run(main)
