"""Command of the stage `data`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.data",
        "Sample a subset of a pool, or replay all views of a reinforced dataset once.",
        "python -m clipdr.data subset --settings results/subset/<subset>/settings.json "
        "--index results/pool/<pool>/shards/index.parquet --output my-subset.parquet",
    )
    commands = parser.add_subparsers(required=True, metavar="subset|views")
    subset = cli.command(
        commands,
        "subset",
        _subset,
        "Sample a subset of a pool uniformly.",
        "python -m clipdr.data subset --settings results/subset/<subset>/settings.json "
        "--index results/pool/<pool>/shards/index.parquet --output my-subset.parquet",
    )
    subset.add_argument("--index", type=Path, required=True, help="the pool's index.parquet")
    views = cli.command(
        commands,
        "views",
        _views,
        "Replay all stored views of a reinforced dataset at a student's size.",
        "python -m clipdr.data views --settings results/views/<views>/settings.json "
        "--reinforced results/reinforced/<dataset>/shards --output my-views",
    )
    views.add_argument("--reinforced", type=Path, required=True, help="folder that `clipdr.reinforce embed` wrote")
    for command in (subset, views):
        command.add_argument("--settings", type=cli.settings, required=True, help="its settings.json")
        command.add_argument("--output", type=Path, required=True, help="parquet file, or folder of arrays")
    args = parser.parse_args()
    args.run(args)


def _subset(args) -> None:
    import pandas as pd

    from clipdr.data.subset import sample
    from clipdr.files import atomic_file

    chosen = sample(pd.read_parquet(args.index), args.settings["size"], args.settings["seed"])
    with atomic_file(args.output) as path:
        chosen.to_parquet(path, index=False)


def _views(args) -> None:
    cli.set_threads(1)
    from clipdr.data.views import materialise

    materialise(args.reinforced, args.settings["size"], args.output)


if __name__ == "__main__":
    cli.run(main)
