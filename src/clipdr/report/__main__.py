"""python -m clipdr.report: tables and their figures, accuracy over latency, the chain; and what a cell rests on."""

import json
from pathlib import Path

from clipdr import cli
from clipdr.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[3]


def main() -> None:
    args = _arguments()
    args.run(args)


def _table(args) -> None:
    from clipdr.report import cost, storage, table

    experiment = args.settings["experiment"]
    stage = cost if "cost" in experiment else storage if "storage" in experiment else table
    stage.build(args.settings, args.results, args.output)


def _figure(args) -> None:
    from clipdr.report import correlation, curve, figure

    experiment = args.settings["experiment"]
    stage = curve if "curve" in experiment else correlation if "correlation" in experiment else figure
    stage.draw(args.settings, args.results, args.output)


def _losses(args) -> None:
    from clipdr.report.losses import draw

    draw(args.settings, args.results, args.output)


def _latency(args) -> None:
    from clipdr.report.latency import draw

    draw(args.settings["experiment"], args.results, args.column, args.output)


def _chain(args) -> None:
    from clipdr.report.chain import draw

    draw(args.pool, args.captions, args.output)


def _explain(args) -> None:
    from clipdr.config import experiment_files, full_name
    from clipdr.report.explain import explain

    paper, _, name = full_name(args.experiment, experiment_files(REPOSITORY)).partition("-")
    path = args.results / args.scale / "report" / paper / name / "settings.json"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; build the table first, or name the scale and the folder of its results"
        )
    print(explain(json.loads(path.read_text(encoding="utf-8")), args.row, args.column, args.results))


def _gallery(args) -> None:
    from clipdr.report.gallery import draw

    draw(args.tasks, args.scores, *args.keys, args.title, args.output)


def _page(args) -> None:
    from clipdr.report.page import build

    build(args.settings, args.results, args.output)


def _captions(args) -> None:
    from clipdr.report.captions import draw

    draw(args.pool, args.captions, args.output)


def _arguments():
    of_table2 = "--settings results/mini/report/mobileclip/table2/settings.json --output my-table2"
    parser = cli.parser(
        "clipdr.report",
        "Write tables and pictures from evaluation records.",
        f"python -m clipdr.report table {of_table2}",
    )
    commands = parser.add_subparsers(
        required=True, metavar="table|figure|losses|latency|chain|captions|gallery|page|explain"
    )
    for name, run, output, example in (
        ("table", _table, "path without ending; .csv, .md and .tex are written", of_table2),
        ("figure", _figure, "PNG to write; of an experiment with settings in its rows", f"{of_table2}.png"),
        ("losses", _losses, "PNG to write; of an experiment that trains", f"{of_table2}-loss.png"),
        (
            "latency",
            _latency,
            "PNG to write",
            "--settings results/mini/report/mobileclip/table7/settings.json --column Avg-38 --output figure1.png",
        ),
    ):
        command = cli.command(commands, name, run, WHAT[name], f"python -m clipdr.report {name} {example}")
        command.add_argument(
            "--settings", type=cli.settings, required=True, help="settings.json of the experiment's report"
        )
        command.add_argument(
            "--results", type=Path, default=Path("results"), help="folder of all results (%(default)s)"
        )
        command.add_argument("--output", type=Path, required=True, help=output)
        if name == "latency":
            command.add_argument("--column", required=True, help="column with the published accuracy")
    for name, run in (("chain", _chain), ("captions", _captions)):
        command = cli.command(
            commands,
            name,
            run,
            WHAT[name],
            f"python -m clipdr.report {name} --pool results/pool/<pool>/shards "
            f"--captions results/captions/<captions>/manifest.json --output {name}.png",
        )
        command.add_argument("--pool", type=Path, required=True, help="pool folder: shards and index.parquet")
        command.add_argument("--captions", type=Path, required=True, help="manifest of the captions")
        command.add_argument("--output", type=Path, required=True, help="PNG to write")
    command = cli.command(
        commands,
        "gallery",
        _gallery,
        "Held-out images as a model sees them: hits, misses, and images that are found by their texts.",
        "python -m clipdr.report gallery --tasks results/pool/<pool>/tasks "
        "--scores results/eval/<run>/<suite>/scores/0-of-1 "
        "--keys emoji/val emoji/retrieval --title 'my model' --output gallery.png",
    )
    command.add_argument("--tasks", type=Path, required=True, help="folder of all tasks")
    command.add_argument("--scores", type=Path, nargs="+", required=True, help="folders of the model's scores")
    command.add_argument("--keys", nargs=2, required=True, help="a task of classification and one of retrieval")
    command.add_argument("--title", required=True, help="what model it is")
    command.add_argument("--output", type=Path, required=True, help="PNG to write")
    command = cli.command(
        commands,
        "page",
        _page,
        "All tables that are there, and the papers' claims, on one page.",
        "python -m clipdr.report page --settings results/mini/page/settings.json --output report.html",
    )
    command.add_argument("--settings", type=cli.settings, required=True, help="settings.json of the page")
    command.add_argument("--results", type=Path, default=Path("results"), help="folder of all results (%(default)s)")
    command.add_argument("--output", type=Path, required=True, help="HTML file to write")
    command = cli.command(
        commands,
        "explain",
        _explain,
        "The path from a cell of a table to all that it rests on, and how to rebuild it.",
        'python -m clipdr.report explain table2 "+ distillation" IN-val',
    )
    command.add_argument("experiment", help="as snakemake's target")
    command.add_argument("row", help="of the table")
    command.add_argument("column", help="of the table, one of accuracy")
    command.add_argument("--scale", default="mini", help="whose table (default %(default)s)")
    command.add_argument("--results", type=Path, default=Path("results"), help="folder of all results (%(default)s)")
    return parser.parse_args()


WHAT = {
    "table": "Table of an experiment, reproduced beside published.",
    "figure": "Picture of a table, reproduced beside published.",
    "losses": "Loss curves of a table's runs.",
    "latency": "Published accuracy over latency, measured here and published.",
    "chain": "Picture of the chain of stages with images of the pool.",
    "captions": "Images of the pool with their real and synthetic captions.",
}

if __name__ == "__main__":
    cli.run(main)
