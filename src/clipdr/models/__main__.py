"""python -m clipdr.models: a model folder out of a published file of weights; or what models have and compute."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.models",
        "Make a model folder of published weights, for `clipdr.evaluate --model`.",
        "python -m clipdr.models --model MobileCLIP-S0 --pretrained mobileclip_s0.pt --output published/mobileclip_s0",
    )
    parser.add_argument("--model", metavar="NAME", help="name of config/models")
    parser.add_argument("--pretrained", type=Path, help="published file of weights")
    parser.add_argument("--output", type=Path, help="folder that receives the model")
    parser.add_argument(
        "--count",
        nargs="*",
        metavar="NAME",
        help="print all and active parameters and multiply-accumulates of these, or of all of config/models, instead",
    )
    args = parser.parse_args()
    if args.count is not None:
        print(_counted(args.count))
        return
    if None in (args.model, args.pretrained, args.output):
        parser.error("--model, --pretrained and --output are needed to make a folder; or --count")
    from clipdr.models.create import import_weights

    import_weights(args.model, args.pretrained, args.output)


def _counted(names: list[str]) -> str:
    from clipdr.deploy.counts import count_all, markdown
    from clipdr.model_files import load_models
    from clipdr.schema import REPOSITORY

    return markdown(count_all(names or load_models(REPOSITORY)))


if __name__ == "__main__":
    cli.run(main)
