"""Command of the stage `pool`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    example = (
        "python -m clipdr.pool build --settings results/pool/<pool>/settings.json --sources results/sources/emoji "
        "--pool my-pool/shards --tasks my-pool/tasks"
    )
    parser = cli.parser(
        "clipdr.pool", "Fetch what a scale's pool is made of, and write its images and its held-out tasks.", example
    )
    commands = parser.add_subparsers(required=True, metavar="fetch|build|conceptual|reinforcements|images|gather")
    fetch = cli.command(
        commands,
        "fetch",
        _fetch,
        "Install the locked packages of an emoji pool.",
        "python -m clipdr.pool fetch --packages config/pools/emoji --output my-sources",
    )
    fetch.add_argument("--packages", type=Path, required=True, help="folder with package.json and package-lock.json")
    build = cli.command(commands, "build", _build, "Write the pool's shards and the evaluation tasks.", example)
    build.add_argument(
        "--sources", type=Path, required=True, help="what `fetch` wrote, or a table of images, or a folder of shards"
    )
    build.add_argument("--pool", type=Path, required=True, help="folder that receives shards and index.parquet")
    build.add_argument("--tasks", type=Path, required=True, help="folder that receives the wds_<task> folders")
    conceptual = cli.command(
        commands,
        "conceptual",
        _conceptual,
        "Write addresses and captions of CC3M and CC12M as the metadata that a pool is fetched by.",
        "python -m clipdr.pool conceptual --sources cc3m.tsv cc12m.tsv --output data/CC3M+12M/pairs.parquet",
    )
    conceptual.add_argument("--sources", type=Path, nargs="+", required=True, help="the published .tsv files")
    conceptual.add_argument("--output", type=Path, required=True, help="parquet file to write")
    reinforcements = cli.command(
        commands,
        "reinforcements",
        _reinforcements,
        "Fetch a run of the shards of published reinforcements, or write shards of addresses from metadata.",
        "python -m clipdr.pool reinforcements --settings results/pool/<pool>/settings.json --chunk 003-of-128 "
        "--output my-reinforcements",
    )
    reinforcements.add_argument("--chunk", required=True, help="which run of the shards, as 003-of-128")
    images = cli.command(
        commands,
        "images",
        _images,
        "Fetch the images of published reinforcements from their addresses.",
        "python -m clipdr.pool images --settings results/pool/<pool>/settings.json "
        "--reinforcements my-reinforcements --output my-images",
    )
    images.add_argument("--reinforcements", type=Path, required=True, help="folder that `reinforcements` wrote")
    gathered = cli.command(
        commands,
        "gather",
        _gather,
        "Make one pool of its chunks.",
        "python -m clipdr.pool gather --folder my-pool/chunks --chunks 128 --output my-pool/shards",
    )
    cli.add_chunks(gathered)
    for command in (build, reinforcements, images):
        command.add_argument(
            "--settings", type=cli.settings, required=True, help="its settings.json, the scale's `pool` section"
        )
    for command in (fetch, reinforcements, images, gathered):
        command.add_argument("--output", type=Path, required=True, help="folder")
    args = parser.parse_args()
    args.run(args)


def _fetch(args) -> None:
    from clipdr.pool.fetch import fetch

    fetch(args.packages, args.output)


def _build(args) -> None:
    if args.settings["kind"] == "folder":
        from clipdr.pool.folder import build
    else:
        from clipdr.pool.emoji import build

    build(args.sources, args.settings, args.pool, args.tasks)


def _conceptual(args) -> None:
    from clipdr.pool.conceptual import write_metadata

    write_metadata(args.sources, args.output)


def _reinforcements(args) -> None:
    if "reinforcements" in args.settings:
        from clipdr.pool.reinforcements import download_reinforcements as run
    else:
        from clipdr.pool.addresses import write_addresses as run

    run(args.settings, args.chunk, args.output)


def _images(args) -> None:
    from clipdr.pool.images import download_images

    download_images(args.reinforcements, args.settings, args.output)


def _gather(args) -> None:
    from clipdr.pool.gather import gather

    gather(cli.chunk_folders(args), args.output)


if __name__ == "__main__":
    cli.run(main)
