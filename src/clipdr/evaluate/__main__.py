"""Command of the stage `evaluate`."""

from pathlib import Path

from clipdr import cli

REPOSITORY = Path(__file__).resolve().parents[3]
SUITES = REPOSITORY / "config/suites"


def main() -> None:
    parser = cli.parser(
        "clipdr.evaluate",
        "Score models on the tasks of a suite, or average what was scored.",
        "python -m clipdr.evaluate aggregate my-records.jsonl mobileclip_s0.jsonl",
    )
    commands = parser.add_subparsers(required=True, metavar="suite|aggregate|aro|lock|plan|download")
    suite = cli.command(
        commands,
        "suite",
        _suite,
        "Score a model, or several together, on every task of a suite, and write one JSON record per task.",
        "python -m clipdr.evaluate suite --model results/runs/<run>/model --tasks results/pool/<pool>/tasks "
        "--settings results/suites/<suite>/settings.json --output my-scores",
    )
    suite.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        help="folder with open_clip_config.json and weights; of several, embeddings are joined",
    )
    suite.add_argument("--tasks", type=Path, required=True, help="folder with the wds_* task folders")
    suite.add_argument("--settings", type=cli.settings, required=True, help="its settings.json: tasks and batch_size")
    suite.add_argument("--part", default="0-of-1", help="of the tasks, as <k>-of-<jobs> (default: all, %(default)s)")
    suite.add_argument("--output", type=Path, required=True, help="folder for records.jsonl and each task's outcomes")
    suite.add_argument("--threads", type=int, default=1, help="threads for decoding and for torch (default 1)")
    suite.add_argument(
        "--devices", nargs="+", default=["cpu"], help="where the model runs, several to share the images (default cpu)"
    )
    suite.add_argument("--teachers", type=Path, nargs="+", default=[], help="model folders that tasks compare with")
    averages = cli.command(
        commands,
        "aggregate",
        _aggregate,
        "Print the averages of files of records, ours or others' in DataComp's schema.",
        "python -m clipdr.evaluate aggregate my-scores/records.jsonl mobileclip_s0.jsonl --suite datacomp38",
    )
    averages.add_argument("files", type=Path, nargs="+", metavar="FILE.jsonl", help="one JSON record per line")
    averages.add_argument("--suite", default="datacomp38", help="of config/suites, whose tasks count (%(default)s)")
    aro = cli.command(
        commands,
        "aro",
        _aro,
        "Write a task folder of ARO, from the authors' files or from a copy in parquet.",
        "python -m clipdr.evaluate aro --source visual_genome_relation.json --images images "
        "--output data/tasks/wds_aro-vg_relation",
    )
    aro.add_argument("--source", type=Path, required=True, help="JSON file, or parquet file or folder of them")
    aro.add_argument("--images", type=Path, help="folder of the images that a JSON file names (default: beside it)")
    aro.add_argument("--seed", type=int, default=0, help="of wrong orders of captions that have none (default 0)")
    aro.add_argument("--output", type=Path, required=True, help="the task folder")
    lock = cli.command(
        commands,
        "lock",
        _lock,
        "Write what the tasks of a suite consist of on the hub now: revisions, sizes and hashes.",
        "python -m clipdr.evaluate lock --suite datacomp38",
    )
    plan = cli.command(
        commands,
        "plan",
        _plan,
        "Say what of a suite is there, what is to be fetched, and what must be fetched by hand.",
        "python -m clipdr.evaluate plan --suites datacomp38 aro --tasks data/tasks",
    )
    plan.add_argument("--tasks", type=Path, required=True, help="folder of the wds_* task folders")
    download = cli.command(
        commands,
        "download",
        _download,
        "Fetch a task of a suite, as its lock says.",
        "python -m clipdr.evaluate download --suite datacomp38 --task vtab/dtd --output data/tasks/wds_vtab-dtd",
    )
    download.add_argument("--task", required=True, help="its key")
    download.add_argument("--output", type=Path, required=True, help="the task folder")
    plan.add_argument("--suites", nargs="+", required=True, help="of config/suites")
    for command in (lock, download):
        command.add_argument("--suite", required=True, help="of config/suites")
    args = parser.parse_args()
    args.run(args)


def _suite(args) -> None:
    cli.set_threads(args.threads)
    from clipdr.evaluate.suite import evaluate_suite, part_of

    suite = part_of(args.settings, args.part)
    evaluate_suite(args.model, args.tasks, suite, args.output, args.threads, args.devices, args.teachers)


def _aggregate(args) -> None:
    from clipdr.evaluate.aggregate import report

    print(report(args.files, SUITES / f"{args.suite}.yaml"))


def _aro(args) -> None:
    from clipdr.evaluate.aro import build

    build(args.source, args.images, args.seed, args.output)


def _lock(args) -> None:
    from clipdr.evaluate.download import write_lock

    suite, _ = _suite_and_lock(args.suite)
    write_lock(*_suite_and_lock(suite.get("of", args.suite)))  # a lock is of a whole suite


def _plan(args) -> None:
    from clipdr.evaluate.download import plan

    found = map(_suite_and_lock, args.suites)
    print(plan({lock: suite for suite, lock in found}, args.tasks))


def _download(args) -> None:
    from clipdr.errors import look_up
    from clipdr.evaluate.download import fetch

    suite, lock = _suite_and_lock(args.suite)
    tasks = {task["key"]: task for task in suite["tasks"]}
    fetch(look_up("--task", args.task, tasks, args.suite), lock, args.output)


def _suite_and_lock(name: str) -> tuple[dict, Path]:
    from clipdr.config import load_suite

    suite = load_suite(REPOSITORY, name)
    return suite, SUITES / f"{suite.get('of', name)}.lock.json"


if __name__ == "__main__":
    cli.run(main)
