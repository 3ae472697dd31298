"""Command of the stage `reinforce`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.reinforce",
        "Caption a subset, store augmentations and teacher embeddings, or materialise the stored views.",
        "python -m clipdr.reinforce views --reinforced results/reinforced/emoji/12M-strong --size 32 "
        "--output results/views/emoji/12M-strong-32px",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    caption = commands.add_parser("caption", help="sample synthetic captions")
    caption.add_argument("--captioner", type=Path, required=True, help="open_clip folder of a CoCa model")
    embed = commands.add_parser("embed", help="write reinforced shards")
    embed.add_argument("--captions", type=Path, required=True, help="what `caption` wrote")
    embed.add_argument("--teachers", type=Path, nargs="+", required=True, help="open_clip folders, in order")
    for command in (caption, embed):
        command.add_argument("--settings", type=cli.settings, required=True, help="JSON, or a YAML file")
        command.add_argument("--pool", type=Path, required=True, help="folder of the pool's shards")
        command.add_argument("--subset", type=Path, required=True, help="parquet that `clipdr.subset` wrote")
    views = commands.add_parser("views", help="replay all stored views once")
    views.add_argument("--size", type=int, required=True, help="side of the student's images, px")
    views.add_argument("--reinforced", type=Path, required=True, help="folder that `embed` wrote")
    for command in (caption, embed, views):
        command.add_argument("--output", type=Path, required=True)
        command.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    args = parser.parse_args()
    cli.set_threads(args.threads)
    COMMANDS[args.command](args)


def _caption(args) -> None:
    import pandas as pd

    from clipdr.reinforce.captions import caption

    caption(args.pool, pd.read_parquet(args.subset), args.captioner, args.settings, args.output)


def _embed(args) -> None:
    import pandas as pd

    from clipdr.reinforce.embed import reinforce

    reinforce(args.pool, pd.read_parquet(args.subset), args.captions, args.teachers, args.settings, args.output)


def _views(args) -> None:
    from clipdr.reinforce.materialise import materialise

    materialise(args.reinforced, args.size, args.output)


COMMANDS = {"caption": _caption, "embed": _embed, "views": _views}

if __name__ == "__main__":
    cli.run(main)
