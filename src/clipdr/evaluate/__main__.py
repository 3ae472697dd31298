"""python -m clipdr.evaluate: a model folder and a suite in, one JSON record per task out."""

import json
from pathlib import Path

from clipdr import cli
from clipdr.files import atomic_file


def main() -> None:
    args = _arguments()
    cli.set_threads(args.threads)

    from clipdr.evaluate.suite import evaluate_suite

    records = evaluate_suite(args.model, args.tasks, args.settings, args.threads, args.device)
    with atomic_file(args.output) as partial, partial.open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            lines.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")


def _arguments():
    parser = cli.parser(
        "clipdr.evaluate",
        "Evaluate one model, or an ensemble of several, on every task of a suite and write one JSON record per task.",
        "python -m clipdr.evaluate --model results/runs/<run>/model --tasks results/pool/<pool>/tasks "
        "--settings results/eval/<run>/<suite>/settings.json --output my-records.jsonl",
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        help="folder with open_clip_config.json and weights; of several, embeddings are joined",
    )
    parser.add_argument("--tasks", type=Path, required=True, help="folder with the wds_* task folders")
    parser.add_argument("--settings", type=cli.settings, required=True, help="its settings.json: tasks and batch_size")
    parser.add_argument("--output", type=Path, required=True, help="records, one JSON object per line")
    parser.add_argument("--threads", type=int, default=1, help="threads for decoding and for torch (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where the model runs, as torch names it (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
