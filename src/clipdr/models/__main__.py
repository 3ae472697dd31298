"""python -m clipdr.models: a model folder out of a published file of weights."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    parser = cli.parser(
        "clipdr.models",
        "Make a model folder of published weights, for `clipdr.evaluate --model`.",
        "python -m clipdr.models --model MobileCLIP-S0 --pretrained mobileclip_s0.pt --output published/mobileclip_s0",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="name of config/models")
    parser.add_argument("--pretrained", type=Path, required=True, help="published file of weights")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the model")
    args = parser.parse_args()
    from clipdr.models.create import import_weights

    import_weights(args.model, args.pretrained, args.output)


if __name__ == "__main__":
    cli.run(main)
