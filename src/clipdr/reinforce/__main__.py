"""Command of the stage `reinforce`."""

import sys
from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.reinforce",
        "Caption a subset, store augmentations and teacher embeddings, join published ones, or verify what was stored.",
        "python -m clipdr.reinforce caption --settings results/captions/<captions>/settings.json "
        "--pool results/pool/<pool>/shards --subset results/subset/<subset>/chunks/<chunk>.parquet "
        "--captioner results/zoo/<captioner>/model --output my-captions",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    caption = commands.add_parser("caption", help="sample synthetic captions")
    caption.add_argument("--captioner", type=Path, required=True, help="model folder of a CoCa")
    embed = commands.add_parser("embed", help="write reinforced shards")
    embed.add_argument("--captions", type=Path, help="folder that `caption` wrote (default: no synthetic captions)")
    embed.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="model folders, in the settings' order (none)"
    )
    for command in (caption, embed):
        command.add_argument("--settings", type=cli.settings, required=True, help="its settings.json")
        command.add_argument("--pool", type=Path, required=True, help="folder of the pool's shards")
        command.add_argument("--subset", type=Path, required=True, help="a chunk that `clipdr.data subset` wrote")
        command.add_argument("--device", default="cpu", help="on which the models run: cpu (default), cuda, mps")
        command.add_argument("--output", type=Path, required=True)
    joined = commands.add_parser("join", help="join published reinforcements with images and captions")
    joined.add_argument(
        "--settings", type=cli.settings, required=True, help="JSON: teachers, augmentation, bad_samples"
    )
    joined.add_argument("--reinforcements", type=Path, required=True, help="folder of published shards")
    joined.add_argument("--images", type=Path, required=True, help="folder with <shard>.tar, or <shard>/*.tar")
    joined.add_argument("--captions", type=Path, help="parquet with uid and text (default: the images' txt)")
    joined.add_argument("--output", type=Path, required=True, help="folder of the reinforced dataset")
    check = commands.add_parser("verify", help="read a reinforced dataset again; exits with 1 if it is not sound")
    check.add_argument("folder", type=Path, help="folder of shards and manifest.json")
    check.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="model folders, to embed a share of the samples again"
    )
    check.add_argument("--share", type=float, default=0.01, help="of the samples embedded again (default 0.01)")
    check.add_argument("--seed", type=int, default=0, help="of their choice (default 0)")
    for command in (caption, embed, joined, check):
        command.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    args = parser.parse_args()
    cli.set_threads(args.threads)
    COMMANDS[args.command](args)


def _caption(args) -> None:
    import pandas as pd

    from clipdr.reinforce.captions import caption

    subset = pd.read_parquet(args.subset)
    caption(args.pool, subset, args.captioner, args.settings, args.output, args.device)


def _embed(args) -> None:
    import pandas as pd

    from clipdr.reinforce.embed import reinforce

    subset = pd.read_parquet(args.subset)
    reinforce(args.pool, subset, args.captions, args.teachers, args.settings, args.output, args.device)


def _join(args) -> None:
    from clipdr.reinforce.join import join

    join(args.reinforcements, args.images, args.captions, args.settings, args.output)


def _verify(args) -> None:
    from clipdr.reinforce.verify import verify

    faults = verify(args.folder, args.teachers, args.share, args.seed)
    for fault in faults:
        print(fault)
    print(f"{args.folder}: {f'{len(faults)} faults' if faults else 'sound'}")
    sys.exit(1 if faults else 0)


COMMANDS = {"caption": _caption, "embed": _embed, "join": _join, "verify": _verify}

if __name__ == "__main__":
    cli.run(main)
