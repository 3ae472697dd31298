"""Command of the stage `pool`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.pool",
        "Fetch the packages of a scale's pool, or write its images and its held-out tasks.",
        "python -m clipdr.pool build --settings results/pool/<pool>/settings.json --sources results/sources/emoji "
        "--pool my-pool/shards --tasks my-pool/tasks",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="install the locked packages")
    fetch.add_argument("--packages", type=Path, required=True, help="folder with package.json and package-lock.json")
    fetch.add_argument("--output", type=Path, required=True, help="folder that receives the packages' JSON files")
    build = commands.add_parser("build", help="write the pool's shards and the evaluation tasks")
    build.add_argument(
        "--settings", type=cli.settings, required=True, help="its settings.json, the scale's `pool` section"
    )
    build.add_argument(
        "--sources", type=Path, required=True, help="what `fetch` wrote, or a table of images, or a folder of shards"
    )
    build.add_argument("--pool", type=Path, required=True, help="folder that receives shards and index.parquet")
    build.add_argument("--tasks", type=Path, required=True, help="folder that receives the wds_<task> folders")
    args = parser.parse_args()
    if args.command == "fetch":
        from clipdr.pool.fetch import fetch as run

        run(args.packages, args.output)
    else:
        if args.settings["kind"] == "folder":
            from clipdr.pool.folder import build as run
        else:
            from clipdr.pool.emoji import build as run

        run(args.sources, args.settings, args.pool, args.tasks)


if __name__ == "__main__":
    cli.run(main)
