"""python -m clipdr.report: tables, their figures, accuracy over latency, and the picture of the chain."""

from pathlib import Path

from clipdr import cli


def main() -> None:
    args = _arguments()
    args.run(args)


def _table(args) -> None:
    from clipdr.report.table import build

    build(*_planned(args), args.results, args.output)


def _figure(args) -> None:
    from clipdr.report.figure import draw

    draw(*_planned(args), args.results, args.output)


def _latency(args) -> None:
    from clipdr import config
    from clipdr.report.latency import draw

    experiment = _valid(args.experiment, "experiment")
    root = args.experiment.resolve().parents[2]
    config.check_experiment(experiment, config.load_models(root), str(args.experiment))
    draw(experiment, args.results, args.column, args.output)


def _chain(args) -> None:
    from clipdr.report.chain import draw

    draw(args.pool, args.captions, args.output)


def _planned(args) -> tuple:
    """(experiment, scale, name of the scale, runs), checked like the Snakefile does."""
    from clipdr import config
    from clipdr.experiments import plan

    root = args.scale.resolve().parents[2]
    experiment, scale = _valid(args.experiment, "experiment"), _valid(args.scale, "scale")
    suite, models = config.load_suite(root, scale["evaluation"]["suite"]), config.load_models(root)
    config.check(experiment, scale, models, suite, str(args.experiment), str(args.scale))
    return experiment, scale, args.scale.stem, plan(experiment, scale, models)


def _valid(path: Path, kind: str) -> dict:
    from clipdr.schema import load_yaml, validate

    data = load_yaml(path)
    validate(data, kind, str(path))
    return data


def _arguments():
    table = (
        "python -m clipdr.report table --experiment config/experiments/table2.yaml --scale config/scales/mini.yaml "
        "--results results --output results/tables/table2"
    )
    parser = cli.parser("clipdr.report", "Write tables and pictures from evaluation records.", table)
    commands = parser.add_subparsers(required=True, metavar="table|figure|latency|chain")
    of_table2 = "--experiment config/experiments/table2.yaml --scale config/scales/mini.yaml --output results"
    for name, run, output, example in (
        ("table", _table, "path without ending; .csv, .md and .tex are written", f"{of_table2}/tables/table2"),
        (
            "figure",
            _figure,
            "PNG to write; of an experiment with settings in its rows",
            f"{of_table2}/figures/table2.png",
        ),
    ):
        what = f"{name} of an experiment, reproduced beside published"
        command = cli.command(commands, name, run, what, f"python -m clipdr.report {name} {example}")
        command.add_argument("--experiment", type=Path, required=True, help="experiment file")
        command.add_argument(
            "--scale", type=Path, required=True, help="scale file; models and suites are found beside it"
        )
        command.add_argument(
            "--results", type=Path, default=Path("results"), help="folder with runs/ and models/ (%(default)s)"
        )
        command.add_argument("--output", type=Path, required=True, help=output)
    latency = cli.command(
        commands,
        "latency",
        _latency,
        "published accuracy over latency, measured here and published",
        "python -m clipdr.report latency --experiment config/experiments/table7.yaml --column Avg-38 "
        "--output results/figures/figure1.png",
    )
    latency.add_argument("--experiment", type=Path, required=True, help="experiment file; models are found beside it")
    latency.add_argument("--results", type=Path, default=Path("results"), help="folder with models/ (%(default)s)")
    latency.add_argument("--column", required=True, help="column of the experiment with the published accuracy")
    latency.add_argument("--output", type=Path, required=True, help="PNG to write")
    chain = cli.command(
        commands,
        "chain",
        _chain,
        "picture of the chain of stages with images of the pool",
        "python -m clipdr.report chain --pool results/pool/emoji --captions results/captions/emoji/12M.parquet "
        "--output results/figures/chain.png",
    )
    chain.add_argument("--pool", type=Path, required=True, help="pool folder: shards and index.parquet")
    chain.add_argument("--captions", type=Path, required=True, help="parquet file with uid and syn")
    chain.add_argument("--output", type=Path, required=True, help="PNG to write")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
