"""Command of the stage `data`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.data",
        "Sample a subset of a pool, or bring a reinforced dataset into the form that training reads.",
        "python -m clipdr.data subset --settings results/subset/<subset>/settings.json "
        "--index results/pool/<pool>/shards/index.parquet --output my-subset",
    )
    commands = parser.add_subparsers(required=True, metavar="subset|views|rows|manifest")
    subset = cli.command(
        commands,
        "subset",
        _subset,
        "Sample a subset of a pool uniformly.",
        "python -m clipdr.data subset --settings results/subset/<subset>/settings.json "
        "--index results/pool/<pool>/shards/index.parquet --output my-subset",
    )
    subset.add_argument("--index", type=Path, required=True, help="the pool's index.parquet")
    views = cli.command(
        commands,
        "views",
        _views,
        "Replay all stored views of a reinforced dataset at a student's size.",
        "python -m clipdr.data views --settings results/views/<views>/settings.json "
        "--reinforced results/reinforced/<dataset> --output my-views",
    )
    rows = cli.command(
        commands,
        "rows",
        _rows,
        "Bring a reinforced dataset into the form of which a stream reads single embeddings.",
        "python -m clipdr.data rows --reinforced results/reinforced/<dataset>/chunks/<chunk> --output my-rows",
    )
    manifest = cli.command(
        commands,
        "manifest",
        _manifest,
        "Write one manifest for all chunks of a dataset, which lie in folders below it.",
        "python -m clipdr.data manifest --folder my-dataset/chunks --chunks 16 --output my-dataset/manifest.json",
    )
    cli.add_chunks(manifest)
    for command in (views, rows):
        command.add_argument(
            "--reinforced", type=Path, required=True, help="folder that `clipdr.reinforce embed` wrote"
        )
    for command in (subset, views):
        command.add_argument("--settings", type=cli.settings, required=True, help="its settings.json")
    for command in (subset, views, rows, manifest):
        command.add_argument("--output", type=Path, required=True, help="folder, or manifest.json")
    args = parser.parse_args()
    args.run(args)


def _subset(args) -> None:
    from clipdr.data.subset import sample

    settings = args.settings
    size, seed, chunks = settings["size"], settings["seed"], settings.get("chunks", 1)
    sample(args.index, size, seed, chunks, args.output, settings.get("at_most", False))


def _views(args) -> None:
    cli.set_threads(1)
    from clipdr.data.views import materialise

    materialise(args.reinforced, args.settings["size"], args.output)


def _rows(args) -> None:
    from clipdr.data.rows import convert

    convert(args.reinforced, args.output)


def _manifest(args) -> None:
    from clipdr.data.manifest import merge

    merge(cli.chunk_folders(args), args.output)


if __name__ == "__main__":
    cli.run(main)
