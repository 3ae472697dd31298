"""Tables and pictures from hand-made records: two rows, three seeds, numbers that can be checked by hand."""

import csv as csv_module
import io
import json
import re
import statistics

import numpy as np
import pytest
from PIL import Image
from refusals import edited
from scored import record, write_scores

from clipdr.errors import UserError
from clipdr.report import figure, latency, networks, scores, table, verdicts
from clipdr.text import tex

EXPERIMENT = {
    "title": "Two rows",
    "source": "arXiv 0000.00000, Table 9",
    "seeds": [0, 1, 2],
    "columns": ["IN-val", "Flickr30k", "Own"],
    "settings": {"model": "ViT-B/16:Base", "data": {"dataset": "DataComp-12M"}, "objective": {"name": "reinforced"}},
    "rows": [
        {
            "name": "plain",
            "settings": {"objective": {"lambda": 0}, "data": {"captions": ["real"]}},
            "published": {"IN-val": 44.5, "Flickr30k": None},
        },
        {
            "name": "λ_1 & more",
            "settings": {"objective": {"lambda": 1.0}, "data": {"captions": ["real", "syn"]}},
            "published": {"IN-val": 54.0},
        },
    ],
    "comparisons": [
        {"better": "λ_1 & more", "than": "plain", "column": "IN-val", "claim": "more is better"},
        {"better": "plain", "than": "λ_1 & more", "column": "Flickr30k", "claim": "plain | retrieves"},
    ],
}
WORDS = {"IN-val": ["a/x", "a/y"], "Flickr30k": ["a/pairs"], "Own": ["a/y"]}
SCALE = {"name": "mini", "title": "Miniature", "columns": WORDS}
# main metrics by row and seed: a/x, a/y, a/pairs
VALUES = {
    ("plain", 0): (0.10, 0.30, 0.5),
    ("plain", 1): (0.20, 0.40, 0.5),
    ("plain", 2): (0.30, 0.50, 0.5),
    ("λ_1 & more", 0): (0.20, 0.40, 0.6),
    ("λ_1 & more", 1): (0.30, 0.30, 0.4),
    ("λ_1 & more", 2): (0.60, 0.60, 0.8),
}


RUNS = [{"row": row, "seed": seed, "scores": [f"eval/run{i}"]} for i, (row, seed) in enumerate(VALUES)]


def report(experiment=EXPERIMENT, runs=RUNS):
    """What the job of a table is told."""
    return {"experiment": experiment, "scale": SCALE, "runs": runs}


@pytest.fixture()
def results(tmp_path):
    """Results folder with one evaluation file per run."""
    for run in RUNS:
        x, y, pairs = VALUES[run["row"], run["seed"]]
        write_scores(
            tmp_path / run["scores"][0],
            [record("a/x", x, 40, 4), record("a/y", y, 60, 10), record("a/pairs", pairs, 50)],
        )
    return tmp_path


def _build(results, told=None, output="table"):
    table.build(told or report(), results, results / "tables" / output)
    return {suffix: (results / "tables" / f"{output}{suffix}").read_text() for suffix in (".csv", ".md", ".tex")}


@pytest.fixture()
def drawn(monkeypatch):
    """The figures that are saved from now on, one after the other."""
    import matplotlib.figure

    figures, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k)
    )
    return figures


def test_csv_by_hand(results):
    text = _build(results)[".csv"]
    plain, more = csv_module.DictReader(io.StringIO(text))
    assert list(plain)[:4] == ["row", "lambda", "captions", "seeds"]
    assert [plain["row"], plain["lambda"], plain["captions"], plain["seeds"]] == ["plain", "0", "real", "3"]
    assert [more["lambda"], more["captions"]] == ["1", "real+syn"]
    # per seed, the mean of both tasks: 20, 30, 40 and 30, 30, 60
    assert [plain["IN-val"], plain["IN-val std"]] == ["30.00", "10.00"]
    assert [more["IN-val"], more["IN-val std"]] == ["40.00", f"{statistics.stdev([30, 30, 60]):.2f}"]
    assert [more["Flickr30k"], more["Flickr30k std"]] == ["60.00", "20.00"]
    assert plain["IN-val images"] == "100"
    assert plain["IN-val chance"] == "17.50"  # mean of 1/4 and 1/10
    assert plain["Flickr30k chance"] == "2.00"  # 1/50, whatever the number of captions
    assert [plain["IN-val paper"], plain["Flickr30k paper"], more["Flickr30k paper"]] == ["44.50", "", ""]
    assert "nan" not in text.lower() and "\r" not in text


def test_one_seed_has_no_std(results):
    told = report(runs=[run for run in RUNS if run["seed"] == 0])
    text = _build(results, told)
    assert [line["IN-val std"] for line in csv_module.DictReader(io.StringIO(text[".csv"]))] == ["", ""]
    assert "over 1 seed, times 100, with the middle 95 % of a bootstrap over test images." in text[".md"]
    assert "| 20.0 [15.2, 24.8] " in text[".md"]  # the mean of two tasks, drawn five points to each side
    figure.draw(told, results, results / "one.png")


def test_comparisons_are_paired_by_seed(results):
    better, plain = verdicts.compare(EXPERIMENT, scores.read(EXPERIMENT, SCALE, RUNS, results)).to_dict("records")
    assert (better["mean"], better["seeds"], better["paper"]) == (pytest.approx(10), 3, 9.5)
    # The same images are drawn for both rows, so that seeds alone are left: means of three of 10, 0 and 20.
    assert (better["low"], better["high"]) == (pytest.approx(0), pytest.approx(20))
    assert plain["mean"] == pytest.approx(-10) and np.isnan(plain["paper"])


def test_markdown_tells_the_scale_the_gap_and_the_direction(results):
    text = _build(results)[".md"]
    assert "NOT THE PAPER'S SETTING: these are results at scale `mini` (Miniature)" in text
    assert "not comparable in level" in text
    interval = r"\[[-+.\d]+, [-+.\d]+\]"
    assert re.search(rf"\| plain +\| 0 +\| real +\| 30\.0 {interval} +\| 44\.5 +\| 50\.0 \[45\.2, 54\.8\] +\|", text)
    assert re.search(r"more is better .*\| \+10\.0 \[\+0\.0, \+20\.0\] +\| \+9\.5 +\| undecided", text)
    assert re.search(rf"plain \\\| retrieves .*\| -10\.0 {interval} +\| – +\| undecided", text)
    assert "no values for Flickr30k, Own" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):  # every line of a table has the same number of cells
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_a_value_missing_in_one_row_only_is_a_dash(results):
    text = _build(results, report(edited(EXPERIMENT, "rows//1//published", {"IN-val": None, "Flickr30k": 66.1})))
    assert re.search(r"λ_1 & more .*\| – +\|.*\| 66\.1 +\|", text[".md"])
    assert re.search(r"& -- & .*& 66\.1 & ", text[".tex"])


def test_each_row_shows_what_it_varies_in_one_column_a_word(results):
    """What rows have in common is left out; init and training have columns like the rest."""
    experiment = edited(EXPERIMENT, "rows//1//settings//init", {"row": "plain"})
    experiment["rows"][1]["settings"]["training"] = {"lr": 1e-3}
    plain, more = csv_module.DictReader(io.StringIO(_build(results, report(experiment))[".csv"]))
    assert list(plain)[:6] == ["row", "lambda", "captions", "init", "lr", "seeds"]
    assert [plain["init"], plain["lr"], more["init"], more["lr"]] == ["", "", "plain", "0.001"]


def test_latex_is_escaped_and_rectangular(results):
    text = _build(results)[".tex"]
    assert r"$\lambda$\_1 \& more" in text
    assert r"row & $\lambda$ & captions &" in text
    assert text.isascii()
    body = text[text.index(r"\begin{tabular}") :]
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", body)[1])
    for line in body.splitlines():
        if line.endswith(r"\\"):
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) == columns
    assert body.replace(r"\{", "").count("{") == body.replace(r"\}", "").count("}")
    assert body.count("$") % 2 == 0
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}")] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [("50% & #1_a", r"50\% \& \#1\_a"), ("a\\{b}^~", r"a\textbackslash{}\{b\}\textasciicircum{}\textasciitilde{}")]
    + [("λ = 0.7", r"$\lambda$ = 0.7"), ("1 ± 2", r"1 $\pm$ 2"), ("–", "--"), ("[x]*", "{[}x]{*}"), (0.5, "0.5")],
)
def test_tex_escapes(plain, escaped):
    assert tex(plain) == escaped


def test_bytes_do_not_change(results):
    told = (report(), report(runs=RUNS[::-1]))  # nor with the order of the runs
    assert _build(results, told[0], "first") == _build(results, told[1], "second")
    for name, one in zip(("1.png", "2.png"), (told[0], told[0]), strict=True):
        figure.draw(one, results, results / name)
    assert (results / "1.png").read_bytes() == (results / "2.png").read_bytes()
    assert b"atplotlib" not in (results / "1.png").read_bytes()
    svg = (results / "1.svg").read_bytes()
    assert svg == (results / "2.svg").read_bytes() and b"<svg" in svg and b"date" not in svg


def test_records_shared_by_two_rows_are_read_for_both(results):
    shared = [{**RUNS[0], "row": row} for row in ("plain", "λ_1 & more")]
    summary = table.summarise(EXPERIMENT, scores.read(EXPERIMENT, SCALE, shared, results))
    assert summary.loc[summary["column"] == "IN-val", "mean"].tolist() == pytest.approx([20, 20])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (None, r"run3/records\.jsonl: missing"),
        ([record("a/x", 0.1, 4, 4), record("a/pairs", 0.1, 4)], r"run3/records\.jsonl: no record of a/y"),
        (["no record"], r"run3/records\.jsonl: line 1 is no evaluation record"),
    ],
)
def test_a_bad_evaluation_file_is_named(results, records, message):
    path = write_scores(results / RUNS[3]["scores"][0], records or [])
    if records is None:
        path.unlink()
    with pytest.raises(UserError, match=message):
        _build(results)
    assert not (results / "tables").exists()


def test_figure_has_one_pair_of_panels_per_published_column(results, drawn):
    """Reproduced and published never share an axis: each panel holds the marks of one of them."""
    figure.draw(report(), results, results / "figure.png")
    ours, paper = drawn[0].axes
    assert ours.get_title() == "IN-val\nreproduced at scale mini"
    assert paper.get_title() == "IN-val\npaper (ViT-B/16:Base, DataComp-12M)"
    assert sorted(ours.collections[-1].get_offsets()[:, 0]) == pytest.approx([20, 30, 30, 30, 40, 60])
    assert paper.collections[0].get_offsets()[:, 0].tolist() == [44.5, 54.0]
    assert [label.get_text() for label in ours.get_yticklabels()] == ["plain", "λ_1 & more"]
    assert Image.open(results / "figure.png").size[0] > 600


# ---- network columns

# network -> millions of parameters (image, text), and median, q1, q3 in ms of ONNX Runtime (image, text)
MEASURED = {
    "Small/1:x": ((11.356, 42.4), ((2.0, 1.9, 2.3), (4.0, 3.8, 4.1))),
    "RN50": ((38.3, 63.4), ((6.0, 5.5, 6.5), (4.2, 4.0, 4.4))),
}
PUBLISHED = {
    "title": "Networks",
    "source": "arXiv 0000.00000, Table 8",
    "columns": ["Params img (M)", "Latency img (ms)", "Latency txt (ms)", "Average"],
    "latency_device": "Telephone",
    "rows": [
        {
            "name": "MobileCLIP of ours",
            "labels": {"seen samples": "13B"},
            "network": "Small/1:x",
            "published": {"Params img (M)": 11.4, "Latency img (ms)": 1.5, "Latency txt (ms)": 1.6, "Average": 58.1},
        },
        {
            "name": "measured",
            "network": "RN50",
            "published": {"Latency img (ms)": 3.0, "Latency txt (ms)": None, "Average": 48.1},
        },
        {"name": "elsewhere", "published": {"Latency img (ms)": 1.9, "Latency txt (ms)": 1.7, "Average": 48.3}},
    ],
    "comparisons": [
        {"better": "MobileCLIP of ours", "than": "measured", "column": "Latency img (ms)", "claim": "faster"},
        {"better": "measured", "than": "MobileCLIP of ours", "column": "Latency txt (ms)", "claim": "quicker"},
        {
            "better": "MobileCLIP of ours",
            "than": "measured",
            "column": "Params img (M)",
            "claim": "alike",
            "similar": True,
        },
    ],
}


@pytest.fixture()
def models(tmp_path):
    """Results folder with counts.json and a latency file for each network of MEASURED."""
    folder = tmp_path / "networks"
    (folder / "latency").mkdir(parents=True)
    counts = []
    for name, (params, latencies) in MEASURED.items():
        towers = zip(("image", "text"), params, latencies, strict=True)
        count, entry = {"network": name}, {"network": name, "device": "Abacus, 2 cores", "threads": 1, "batch_size": 1}
        entry["versions"] = {"torch": "2.0", "onnxruntime": "1.0"}
        for tower, millions, quartiles in towers:
            count[tower] = {"params": round(1e6 * millions), "params_train": 1}
            ours = dict(zip(("median_ms", "q1_ms", "q3_ms"), quartiles, strict=True))
            entry[tower] = {"onnxruntime": ours, "torch": {key: 10 * value for key, value in ours.items()}}
        counts.append(count)
        path = folder / "latency" / {"Small/1:x": "Small-1+x.json", "RN50": "RN50.json"}[name]
        path.write_text(json.dumps(entry))
    (folder / "counts.json").write_text(json.dumps(counts))
    return tmp_path


def test_a_table_of_networks_alone(models):
    table.build(report(PUBLISHED, []), models, models / "t")
    ours, measured, elsewhere = csv_module.DictReader((models / "t.csv").open())
    assert [*ours][:4] == ["row", "seen samples", "network", "device"]
    assert [ours["seen samples"], measured["seen samples"], measured["network"]] == ["13B", "", "RN50"]
    assert [ours["Params img (M)"], ours["Params img (M) paper"]] == ["11.36", "11.40"]
    assert [ours[f"Latency img (ms){end}"] for end in ("", " q1", " q3", " torch", " torch q3", " paper")] == [
        *("2.00", "1.90", "2.30", "20.00", "23.00", "1.50")
    ]
    assert set(elsewhere.values()) == {"elsewhere", "", "1.90", "1.70", "48.30"}
    assert "Average" not in ours and ours["Average paper"] == "58.10"
    text = (models / "t.md").read_text()
    assert "no model was trained for this table" in text and "Miniature" not in text and "mini" not in text
    assert re.search(
        r"\| MobileCLIP of ours +\| 13B +\| 11\.4 +\| 11\.4 +\| 2\.0 \[1\.9–2\.3\] +\| 1\.5 +\| 4\.0 ", text
    )
    assert re.search(r"\| elsewhere +\| +\| – +\| – +\| – +\| 1\.9 +\| – +\| 1\.7 +\| 48\.3 +\|", text)
    assert "Latency img (ms) (this CPU)" in text and "Latency img (ms) (Telephone)" in text
    assert "Average (paper)" in text and "Average (scale" not in text
    assert "Abacus, 2 cores, 1 thread, batch size 1, onnxruntime 1.0, torch 2.0" in text
    assert "not in level" in text
    assert re.search(r"faster .*\| -4\.0 \(-66\.7%\) +\| -1\.5 \(-50\.0%\) +\| holds \(quartiles apart\)", text)
    assert re.search(r"quicker .*\| \+0\.2 \(\+5\.0%\) +\| – +\| does not hold \(quartiles overlap\)", text)
    assert re.search(r"alike .*\| alike in the paper +\|", text)
    lines = [line for line in (models / "t.tex").read_text().splitlines() if line.endswith(r"\\")]
    assert [len(line.split("&")) for line in lines[1:]] == [9, 9, 9, 9]  # row, label, three pairs, one alone


def test_accuracy_of_the_scale_beside_facts_about_full_size_networks(results, models):
    rows = [{**row, "network": "RN50"} for row in EXPERIMENT["rows"]]
    columns = ["Latency txt (ms)", *EXPERIMENT["columns"]]
    experiment = {
        **EXPERIMENT,
        "columns": columns,
        "rows": [*rows, {"name": "of others", "published": {"IN-val": 60.0}}],
    }
    table.build(report(experiment), results, results / "t")
    plain, _, others = csv_module.DictReader((results / "t.csv").open())
    assert [plain["Latency txt (ms)"], plain["IN-val"], plain["IN-val images"]] == ["4.20", "30.00", "100"]
    assert [others["seeds"], others["IN-val"], others["IN-val images"], others["IN-val paper"]] == [
        "0",
        "",
        "",
        "60.00",
    ]
    text = (results / "t.md").read_text()
    assert "scale `mini`" in text and "of the paper's full-size networks" in text
    assert re.search(r"\| of others +\| +\| +\| – +\| – +\| 60\.0 +\|", text)
    assert "or not measured" in text and "Latency txt (ms)" not in text.split("## What the columns")[1].split("## ")[0]
    figure.draw(report(experiment), results, results / "t.png")


def test_rows_of_the_zoo_have_scores_of_ours(results):
    rows = [{"name": name, "zoo": "word", "published": {"IN-val": 80.1}} for name in ("plain", "λ_1 & more")]
    experiment = {"title": "Zoo", "source": "x", "columns": EXPERIMENT["columns"], "rows": rows}
    table.build(report(experiment, [run for run in RUNS if run["seed"] == 0]), results, results / "t")
    plain, more = csv_module.DictReader((results / "t.csv").open())
    assert [plain["IN-val"], more["IN-val"], plain["seeds"]] == ["20.00", "30.00", "1"]
    text = (results / "t.md").read_text()
    assert "these are results at scale `mini`" in text and "no model was trained" not in text
    assert re.search(r"\| plain +\| 20\.0 \[15\.2, 24\.8\] +\| 80\.1 +\|", text)
    figure.draw(report(experiment, [run for run in RUNS if run["seed"] == 0]), results, results / "t.png")


def test_no_figure_of_accuracy_without_runs(models):
    with pytest.raises(UserError, match="Networks: no row has settings"):
        figure.draw(report(PUBLISHED, []), models, models / "t.png")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("counts.json", None, r"networks/counts\.json: missing"),
        ("latency/RN50.json", None, r"latency/RN50\.json: missing"),
        ("latency/RN50.json", "{", r"latency/RN50\.json: cannot be read as JSON"),
        ("counts.json", "[]", r"counts\.json: has no network 'Small/1:x'"),
        ("latency/RN50.json", ('"RN50"', '"RN101"'), r"RN50\.json: is of network 'RN101', not 'RN50'"),
        (
            "latency/RN50.json",
            ("Abacus", "Slide rule"),
            r"RN50\.json: device is Slide rule.*Small-1\+x\.json; measure all",
        ),
        (
            "latency/RN50.json",
            ('"threads": 1', '"threads": 2'),
            r"RN50\.json: threads is 2, but 1 in .*Small-1\+x\.json",
        ),
    ],
)
def test_a_bad_file_of_measurements_is_named(models, file, change, message):
    path = models / "networks" / file
    if change is None:
        path.unlink()
    else:
        path.write_text(change if isinstance(change, str) else path.read_text().replace(*change))
    with pytest.raises(UserError, match=message):
        table.build(report(PUBLISHED, []), models, models / "t")
    assert not (models / "t.md").exists()


def test_only_what_the_columns_show_is_read(models):
    (models / "networks/counts.json").unlink()
    cells, conditions = networks.measurements({**PUBLISHED, "columns": ["Latency txt (ms)", "Average"]}, models)
    assert (cells["value"].tolist(), conditions["threads"]) == ([4.0, 4.2], 1)
    cells, conditions = networks.measurements({**PUBLISHED, "columns": ["Average"]}, models)
    assert cells.empty and not conditions


def test_points_of_the_latency_figure(models):
    """Both towers added up; a row is in a panel if it has what the panel shows."""
    points, _ = latency.measured(PUBLISHED, models, "Average")
    assert points == {"MobileCLIP of ours": (6.0, 58.1), "measured": (pytest.approx(10.2), 48.1)}
    assert latency.published(PUBLISHED, "Average") == {
        "MobileCLIP of ours": (pytest.approx(3.1), 58.1),
        "elsewhere": (pytest.approx(3.6), 48.3),
    }


@pytest.mark.slow
def test_latency_figure_covers_no_label_and_is_the_same_each_time(models, drawn):
    from matplotlib.text import Text

    near = [
        {"name": f"model {i}", "network": "RN50", "published": {"Latency img (ms)": 1.9, "Average": 48.1 + 0.1 * i}}
        for i in range(12)
    ]
    for row in near:
        row["published"]["Latency txt (ms)"] = 1.7
    crowded = {**PUBLISHED, "rows": [*PUBLISHED["rows"], *near]}
    for name in ("1.png", "2.png"):
        latency.draw(crowded, models, "Average", models / name)
    assert (models / "1.png").read_bytes() == (models / "2.png").read_bytes()
    ours, paper = drawn[0].axes
    assert "Abacus, 2 cores, 1 thread" in ours.get_xlabel() and "Telephone" in paper.get_xlabel()
    assert "none of ours" in drawn[0].get_suptitle()
    assert ours.get_xlim() != paper.get_xlim()
    for axis, expected in ((ours, 14), (paper, 14)):
        boxes = [Text.get_window_extent(text) for text in axis.texts]
        assert len(boxes) == expected
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        highlighted = [text.get_text() for text in axis.texts if text.get_weight() == "bold"]
        assert highlighted == ["MobileCLIP of ours"]


def test_latency_figure_without_points_is_refused(models):
    with pytest.raises(UserError, match="--column: 'Averag' has no published accuracy .*; did you mean 'Average'"):
        latency.draw(PUBLISHED, models, "Averag", models / "x.png")
    rows = [{key: value for key, value in row.items() if key != "network"} for row in PUBLISHED["rows"]]
    with pytest.raises(UserError, match="Networks: no row has Average and a network"):
        latency.draw({**PUBLISHED, "rows": rows}, models, "Average", models / "x.png")


@pytest.mark.parametrize(
    ("command", "experiment", "message"),
    [
        ("table", EXPERIMENT, r"eval/run0/records\.jsonl: missing"),
        ("figure", EXPERIMENT, r"eval/run0/records\.jsonl: missing"),
        ("latency", PUBLISHED, r"networks/latency/Small-1\+x\.json: missing; measure the networks first"),
    ],
)
def test_a_command_reads_its_settings_and_names_what_is_missing(command, experiment, message, tmp_path, monkeypatch):
    from clipdr.report.__main__ import main

    (tmp_path / "settings.json").write_text(json.dumps(report(experiment)))
    arguments = ["--settings", tmp_path / "settings.json", "--results", tmp_path, "--output", tmp_path / "out"]
    arguments += ["--column", "Average"] if command == "latency" else []
    monkeypatch.setattr("sys.argv", ["report", command, *map(str, arguments)])
    with pytest.raises(UserError, match=message):
        main()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_settings_that_cannot_be_read_are_an_error_of_the_command_line(content, tmp_path, monkeypatch, capsys):
    from clipdr.report.__main__ import main

    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    monkeypatch.setattr("sys.argv", ["report", "table", "--settings", str(tmp_path / "settings.json"), "--output", "x"])
    with pytest.raises(SystemExit):
        main()
    assert re.search(
        r"argument --settings: .*settings\.json (is no readable JSON|holds no JSON)", capsys.readouterr().err
    )


def test_the_report_never_imports_torch():
    import subprocess
    import sys

    code = (
        "import sys, clipdr.report.table, clipdr.report.figure, clipdr.report.latency, clipdr.report.chain;"
        "import clipdr.report.__main__;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
