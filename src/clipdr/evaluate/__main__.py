"""python -m clipdr.evaluate: a model folder and a suite in, one JSON record per task out."""

import json
from pathlib import Path

import yaml

from clipdr import cli
from clipdr.errors import UserError
from clipdr.files import atomic_file


def main() -> None:
    args = _arguments()
    try:
        suite = yaml.safe_load(args.suite.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{args.suite}: not a readable YAML file ({' '.join(str(error).split())})") from error
    cli.set_threads(args.threads)

    from clipdr.evaluate.suite import evaluate_suite

    records = evaluate_suite(
        args.model, args.tasks, suite, args.batch_size, args.threads, args.device, suite_name=str(args.suite)
    )
    with atomic_file(args.output) as partial, partial.open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            lines.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")


def _arguments():
    parser = cli.parser(
        "clipdr.evaluate",
        "Evaluate one model on every task of a suite and write one JSON record per task.",
        "python -m clipdr.evaluate --model results/runs/RUN/model --tasks results/tasks/emoji "
        "--suite config/suites/emoji.yaml --output results/runs/RUN/eval/emoji.jsonl --batch-size 256",
    )
    parser.add_argument("--model", type=Path, required=True, help="folder with open_clip_config.json and weights")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with the wds_* task folders")
    parser.add_argument("--suite", type=Path, required=True, help="suite file: the list of tasks")
    parser.add_argument("--output", type=Path, required=True, help="records, one JSON object per line")
    parser.add_argument("--batch-size", type=int, default=256, help="images or texts per forward pass (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads for decoding and for torch (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where the model runs, as torch names it (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
