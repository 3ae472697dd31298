"""Command of the stage `corpus`."""

from pathlib import Path

from clipdr import cli
from clipdr.errors import UserError


def main() -> None:
    parser = cli.parser(
        "clipdr.corpus",
        "Make a corpus of texts that do not belong to the images, for training without pairs.",
        "python -m clipdr.corpus build --settings results/corpora/<corpus>/settings.json "
        "--sentences results/sentences/<sentences>/sentences --texts results/embedded/<texts>/table "
        "--images results/embedded/<images>/table --output my-corpus",
    )
    commands = parser.add_subparsers(required=True, metavar="sentences|embed|build")
    sentences = cli.command(
        commands,
        "sentences",
        _sentences,
        "Write sentences to choose from.",
        "python -m clipdr.corpus sentences --settings results/sentences/<sentences>/settings.json "
        "--source results/sources/wordnet --output my-sentences",
    )
    sentences.add_argument("--settings", type=cli.settings, required=True, help="its settings.json: their kind")
    sentences.add_argument(
        "--source", type=Path, required=True, help="packages, a pool's index.parquet, folder of tasks, or a file"
    )
    embed = cli.command(
        commands,
        "embed",
        _embed,
        "Embed sentences, or the images of a subset as they are.",
        "python -m clipdr.corpus embed --teacher results/zoo/<teacher>/model --name resnet "
        "--sentences my-sentences --output my-table",
    )
    embed.add_argument("--teacher", type=Path, required=True, help="its model folder")
    embed.add_argument("--name", required=True, help="what it is called in the zoo")
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument("--sentences", type=Path, help="folder of sentences")
    what.add_argument("--subset", type=Path, help="folder of a subset's chunks; needs --pool")
    embed.add_argument("--pool", type=Path, help="folder of the pool's shards")
    embed.add_argument("--device", default="cpu", help="where the teacher runs (default %(default)s)")
    embed.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    build = cli.command(
        commands,
        "build",
        _build,
        "Choose the sentences of a corpus: all, some at random, the nearest, or one for each image (Algorithm 1).",
        "python -m clipdr.corpus build --settings my-settings.json --sentences my-sentences --texts my-table "
        "--images my-image-table --output my-corpus",
    )
    build.add_argument("--settings", type=cli.settings, required=True, help="its settings.json: method and teachers")
    build.add_argument("--sentences", type=Path, nargs="+", required=True, help="folders of sentences")
    build.add_argument("--texts", type=Path, nargs="+", required=True, help="their embeddings, teacher by teacher")
    build.add_argument("--images", type=Path, help="embeddings of the images by the first teacher")
    build.add_argument("--like", type=Path, help="corpus of whose size this one is to be")
    build.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    for command in (sentences, embed, build):
        command.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    args.run(args)


def _sentences(args) -> None:
    from clipdr.corpus.sentences import write_sentences

    write_sentences(args.settings, args.source, args.output)


def _embed(args) -> None:
    cli.set_threads(args.threads)
    from clipdr.corpus.embed import embed_images, embed_texts
    from clipdr.corpus.sentences import TEXTS

    if args.sentences:
        embed_texts(args.sentences / TEXTS, args.name, args.teacher, args.output, args.device)
    elif args.pool:
        import pandas as pd

        subset = pd.concat([pd.read_parquet(path) for path in sorted(args.subset.glob("*.parquet"))])
        embed_images(args.pool, subset, args.name, args.teacher, args.output, args.device)
    else:
        raise UserError("--subset needs --pool, the folder of the images; give it")


def _build(args) -> None:
    cli.set_threads(args.threads)
    from clipdr.corpus.select import build

    build(args.settings, args.sentences, args.texts, args.images, args.like, args.output)


if __name__ == "__main__":
    cli.run(main)
