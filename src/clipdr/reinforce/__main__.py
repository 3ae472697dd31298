"""Command of the stage `reinforce`."""

import sys
from pathlib import Path

from clipdr import cli

SUBSET = "--pool results/pool/<pool>/shards --subset results/subset/<subset>/chunks/<chunk>.parquet"


def main() -> None:
    parser = cli.parser(
        "clipdr.reinforce",
        "Caption a subset, store augmentations and teacher embeddings, join published ones, or verify what was stored.",
        f"python -m clipdr.reinforce caption --settings results/captions/<captions>/settings.json {SUBSET} "
        "--captioner results/zoo/<captioner>/model --output my-captions",
    )
    commands = parser.add_subparsers(
        required=True, metavar="caption|embed|take-captions|take-reinforcements|join|storage|verify"
    )
    caption = cli.command(
        commands,
        "caption",
        _caption,
        "Sample synthetic captions.",
        f"python -m clipdr.reinforce caption --settings results/captions/<captions>/settings.json {SUBSET} "
        "--captioner results/zoo/<captioner>/model --output my-captions",
    )
    caption.add_argument("--captioner", type=Path, required=True, help="model folder of a CoCa")
    embed = cli.command(
        commands,
        "embed",
        _embed,
        "Write reinforced shards.",
        f"python -m clipdr.reinforce embed --settings results/reinforced/<dataset>/settings.json {SUBSET} "
        "--captions results/captions/<captions>/chunks/<chunk> --teachers results/zoo/<teacher>/model "
        "--output my-shards",
    )
    embed.add_argument("--captions", type=Path, help="folder that `caption` wrote (default: no synthetic captions)")
    embed.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="model folders, in the settings' order (none)"
    )
    taken = [
        cli.command(
            commands,
            f"take-{what}",
            run,
            f"Take over {what} that the pool's samples bring with them.",
            f"python -m clipdr.reinforce take-{what} --settings results/{folder}/settings.json {SUBSET} "
            f"--output my-{what}",
        )
        for what, run, folder in (
            ("captions", _take_captions, "captions/<captions>"),
            ("reinforcements", _take_reinforcements, "reinforced/<dataset>"),
        )
    ]
    joined = cli.command(
        commands,
        "join",
        _join,
        "Join published reinforcements with images and captions.",
        "python -m clipdr.reinforce join --settings join.json --reinforcements DataCompDR-12M-bf16 --images my-images "
        "--output my-store",
    )
    joined.add_argument("--reinforcements", type=Path, required=True, help="folder of published shards")
    joined.add_argument("--images", type=Path, required=True, help="folder with <shard>.tar, or <shard>/*.tar")
    joined.add_argument("--captions", type=Path, help="parquet with uid and text (default: the images' txt)")
    measured = cli.command(
        commands,
        "storage",
        _storage,
        "Measure the bytes of what a table's rows store of a sample.",
        "python -m clipdr.reinforce storage --settings results/storage/<storage>/settings.json "
        "--reinforced results/reinforced/<dataset> --output storage.json",
    )
    measured.add_argument("--reinforced", type=Path, required=True, help="folder of a store with embeddings")
    check = cli.command(
        commands,
        "verify",
        _verify,
        "Read a reinforced dataset again; exits with 1 if it is not sound.",
        "python -m clipdr.reinforce verify results/reinforced/<dataset>",
    )
    check.add_argument("folder", type=Path, help="folder with manifest.json, of a chunk or of all")
    check.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="model folders, to embed a share of the samples again"
    )
    check.add_argument("--share", type=float, default=0.01, help="of the samples embedded again (default 0.01)")
    check.add_argument("--seed", type=int, default=0, help="of their choice (default 0)")
    for command in (caption, embed, *taken):
        command.add_argument("--pool", type=Path, required=True, help="folder of the pool's shards")
        command.add_argument("--subset", type=Path, required=True, help="a chunk that `clipdr.data subset` wrote")
    for command in (caption, embed):
        command.add_argument("--device", default="cpu", help="on which the models run: cpu (default), cuda, mps")
    for command in (caption, embed, *taken, joined, measured):
        command.add_argument("--settings", type=cli.settings, required=True, help="its settings.json")
        command.add_argument("--output", type=Path, required=True, help="folder, or the JSON file of `storage`")
    for command in (caption, embed, check):
        command.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    args = parser.parse_args()
    cli.set_threads(getattr(args, "threads", 1))
    args.run(args)


def _caption(args) -> None:
    from clipdr.reinforce.captions import caption

    caption(args.pool, _rows(args), args.captioner, args.settings, args.output, args.device)


def _embed(args) -> None:
    from clipdr.reinforce.embed import reinforce

    reinforce(args.pool, _rows(args), args.captions, args.teachers, args.settings, args.output, args.device)


def _take_captions(args) -> None:
    from clipdr.reinforce.stored import take_captions

    take_captions(args.pool, _rows(args), args.settings, args.output)


def _take_reinforcements(args) -> None:
    from clipdr.reinforce.stored import take_reinforcements

    take_reinforcements(args.pool, _rows(args), args.settings, args.output)


def _rows(args):
    """The chosen rows of the index."""
    import pandas as pd

    return pd.read_parquet(args.subset)


def _join(args) -> None:
    from clipdr.reinforce.join import join

    join(args.reinforcements, args.images, args.captions, args.settings, args.output)


def _storage(args) -> None:
    from clipdr.reinforce.storage import measure

    measure(args.reinforced, args.settings, args.output)


def _verify(args) -> None:
    from clipdr.reinforce.verify import verify

    faults = verify(args.folder, args.teachers, args.share, args.seed)
    for fault in faults:
        print(fault)
    print(f"{args.folder}: {f'{len(faults)} faults' if faults else 'sound'}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    cli.run(main)
