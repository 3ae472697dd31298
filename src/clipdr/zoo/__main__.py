"""Command of the stage `zoo`."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.zoo",
        "Train the tokenizer, a teacher or the captioner of a scale on its pool, or get published ones.",
        "python -m clipdr.zoo member --settings results/zoo/<member>/settings.json --pool results/pool/<pool>/shards "
        "--tokenizer results/tokenizer/<tokenizer>/tokenizer --output my-teacher",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    tokenizer = commands.add_parser("tokenizer", help="train the byte-pair tokenizer on the pool's texts")
    member = commands.add_parser("member", help="train a teacher or the captioner")
    member.add_argument("--tokenizer", type=Path, required=True, help="folder with the tokenizer's files")
    member.add_argument("--threads", type=int, default=1, help="torch threads (default 1: the bytes depend on it)")
    published = commands.add_parser("published", help="get weights of open_clip's list")
    published.add_argument("--weights", type=Path, help="folder with <model>/<tag>.safetensors (default: fetched)")
    for command in (tokenizer, member, published):
        command.add_argument("--settings", type=cli.settings, required=True, help="its settings.json")
        command.add_argument("--output", type=Path, required=True, help="folder to write")
    for command in (tokenizer, member):
        command.add_argument("--pool", type=Path, required=True, help="folder of the pool's shards")
    args = parser.parse_args()
    if args.command == "published":
        from clipdr.zoo.published import publish

        publish(args.settings, args.weights, args.output)
    elif args.command == "tokenizer":
        from clipdr.zoo.tokenizer import tokenizer_of

        tokenizer_of(args.pool, args.settings["vocab_size"], args.output)
    else:
        cli.set_threads(args.threads)
        from clipdr.zoo.train import train_member

        train_member(args.settings, args.pool, args.tokenizer, args.output)


if __name__ == "__main__":
    cli.run(main)
