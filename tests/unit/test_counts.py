"""Parameters and multiply-accumulates of the miniatures against formulas, and the files and commands around them."""

import csv
import json
import sys
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from clipdr import model_files
from clipdr.deploy import __main__ as deploy
from clipdr.deploy import counts
from clipdr.errors import UserError
from clipdr.models import __main__ as models
from clipdr.models import registry
from clipdr.models.build import build
from clipdr.report.networks import read_counts

NAMES = ["mini-student", "mini-mct-4"]
counted = cache(counts.count)


def parts(name: str) -> tuple[int, dict, dict, dict]:
    """Width of the embedding, and the configurations of the image tower, the text tower and CoCa's decoder."""
    cfg = registry.configuration(name)["model_cfg"]
    return cfg["embed_dim"], cfg["vision_cfg"], cfg["text_cfg"], cfg.get("multimodal_cfg")


def block(width: int) -> int:
    """Parameters of a transformer's block: matrices and biases of four projections and an MLP, two layer norms."""
    return 12 * width**2 + 9 * width + 4 * width


def block_macs(width: int, tokens: int) -> int:
    return 12 * width**2 * tokens + 2 * tokens**2 * width


def test_a_transformers_parameters():
    embed, image, text, _ = parts("mini-vit-base")
    width, patch = image["width"], image["patch_size"]
    tokens = (image["image_size"] // patch) ** 2 + 1
    expected = 3 * patch**2 * width + width + tokens * width + 2 * width  # stem, class token, positions, first norm
    expected += image["layers"] * block(width) + 2 * width + width * embed
    assert counted("mini-vit-base")["image"]["params"] == expected
    width = text["width"]
    expected = (text["vocab_size"] + text["context_length"]) * width + 2 * width + width * embed
    assert counted("mini-vit-base")["text"]["params"] == expected + text["layers"] * block(width)


def test_a_transformers_multiplications():
    embed, image, text, _ = parts("mini-vit-base")
    width, patch = image["width"], image["patch_size"]
    patches = (image["image_size"] // patch) ** 2
    expected = patches * 3 * patch**2 * width + image["layers"] * block_macs(width, patches + 1) + width * embed
    assert counted("mini-vit-base")["image"]["gmacs"] == pytest.approx(expected / 1e9, rel=1e-12)
    width, tokens = text["width"], text["context_length"]
    expected = text["layers"] * block_macs(width, tokens) + width * embed
    assert counted("mini-vit-base")["text"]["gmacs"] == pytest.approx(expected / 1e9, rel=1e-12)


@pytest.mark.parametrize("attention", [6, 4, 0])
def test_a_hybrid_text_encoder(attention):
    embed, _, text, _ = parts(f"mini-mct-{attention}")
    width, tokens, kernel = text["width"], text["context_length"], text["mct"]["kernel_size"]
    convolutional = text["layers"] - attention
    ffn = width * kernel + 2 * width + 8 * width**2 + 5 * width + width  # with batch norm and layer scale
    mixer = {"params_train": width * kernel + 3 * 2 * width + width, "params": width * kernel + width}
    rest = (text["vocab_size"] + tokens) * width + 2 * width + width * embed + attention * block(width)
    found = counted(f"mini-mct-{attention}")["text"]
    for form in mixer:
        assert found[form] == rest + convolutional * (mixer[form] + ffn)
    expected = attention * block_macs(width, tokens) + width * embed
    expected += convolutional * tokens * (2 * kernel * width + 8 * width**2)
    assert found["gmacs"] == pytest.approx(expected / 1e9, rel=1e-12)


def test_the_text_of_a_coca_has_its_decoder():
    embed, image, text, decoder = parts("mini-captioner")
    width, tokens = text["width"], text["context_length"] + 1  # the class token
    expected = text["layers"] * block_macs(width, tokens) + width * embed
    width, tokens = decoder["width"], text["context_length"] - 1  # nothing follows the last one
    patches = (image["image_size"] // image["patch_size"]) ** 2
    across = 10 * width**2 * tokens + 2 * width**2 * patches + 2 * tokens * patches * width
    expected += decoder["layers"] * (block_macs(width, tokens) + across) + tokens * width * text["vocab_size"]
    found = counted("mini-captioner")
    assert found["text"]["gmacs"] == pytest.approx(expected / 1e9, rel=1e-12)
    with torch.device("meta"):
        model = build(registry.configuration("mini-captioner"), "mini-captioner")
    every = sum(parameter.numel() for parameter in model.parameters())
    assert found["image"]["params"] + found["text"]["params"] + model.logit_scale.numel() == every


def test_folding_leaves_the_training_form_its_parameters():
    found = counted("mini-mci-base")
    with torch.device("meta"):
        model = build(registry.configuration("mini-mci-base"), "mini-mci-base")
    assert found["image"]["params_train"] == sum(p.numel() for p in model.visual.parameters())
    assert found["image"]["params"] < found["image"]["params_train"]
    assert found["text"]["params"] == found["text"]["params_train"]
    assert [found[key] for key in ("image_size", "embed_dim", "context_length")] == [32, 64, 16]


def test_the_files(tmp_path):
    found = counts.count_all([*NAMES, NAMES[0]], tmp_path / "models/counts.json", tmp_path / "tables/models")
    assert [entry["network"] for entry in found] == NAMES
    assert json.loads((tmp_path / "models/counts.json").read_text()) == found
    assert found == [counted(name) for name in NAMES]
    values = read_counts(tmp_path / "models/counts.json", NAMES)  # what the reports read
    assert values[NAMES[1]]["text"]["value"] == found[1]["text"]["params"] / 1e6
    with open(tmp_path / "tables/models.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["network"] for line in lines] == NAMES
    assert [int(line["text params_train"]) for line in lines] == [entry["text"]["params_train"] for entry in found]
    assert [float(line["image gmacs"]) for line in lines] == [entry["image"]["gmacs"] for entry in found]
    markdown, tex = ((tmp_path / f"tables/models.{suffix}").read_text() for suffix in ("md", "tex"))
    assert counts.markdown(found) in markdown and counts.LEGEND in markdown
    body = tex.split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()
    assert [line.split(" & ")[0] for line in body] == NAMES
    assert {line.count("&") for line in tex.splitlines() if "&" in line} == {11}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        *("counts.json", "models.csv", "models.md", "models.tex")
    ]


def test_one_decimal_as_in_the_paper_and_three_for_miniatures():
    tower = {"params_train": 35_814_720, "params": 35_702_480, "params_active": 30e6, "gmacs": 0.00126}
    entry = {"network": "a|b_c", "image_size": 256, "embed_dim": 512, "context_length": 77}
    entry |= {"image": tower, "text": tower}
    line = counts.markdown([entry]).splitlines()[-1].strip("| ")
    cells = [cell.strip() for cell in line.replace("\\|", "&").split("|")]
    assert cells == ["a&b_c", "256", "77", "512", *(("35.7", "30.0", "35.8") * 2), "0.001", "0.001"]
    assert r"a$|$b\_c & 256" in counts.latex([entry])


def misfit(kind: str) -> dict:
    wrong = json.loads(json.dumps(registry.configuration("mini-captioner")))
    if kind == "widths":
        wrong["model_cfg"]["multimodal_cfg"]["width"] = 48
    else:
        wrong["model_cfg"]["vision_cfg"]["output_tokens"] = False
    return wrong


@pytest.mark.parametrize("kind", ["widths", "outputs"])
def test_parts_that_do_not_fit_together_are_one_line(kind, tmp_path, monkeypatch):
    models = {"mini-student": registry.configuration("mini-student"), "odd": misfit(kind)}
    monkeypatch.setattr(registry, "configuration", models.get)
    with pytest.raises(UserError, match="^odd: its parts do not fit together .*; correct it in config/models") as error:
        counts.count_all(models, tmp_path / "counts.json", tmp_path / "models")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'mini-student'"):
        counts.count("mini-studnet")


def run(monkeypatch, *words: str, command=deploy) -> None:
    monkeypatch.setattr(sys, "argv", ["clipdr", *words])
    command.main()


def test_without_a_command_all_models_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(model_files, "load_models", lambda root: dict.fromkeys(NAMES))
    run(monkeypatch)
    assert capsys.readouterr().out == counts.markdown([counted(name) for name in NAMES]) + "\n"


def test_models_may_be_named_and_files_asked_for(monkeypatch, capsys, tmp_path):
    words = ["--model", NAMES[1], "--model", NAMES[0], "--output", f"{tmp_path}/c.json", "--table", f"{tmp_path}/t"]
    run(monkeypatch, "counts", *words)
    assert capsys.readouterr().out == counts.markdown([counted(name) for name in reversed(NAMES)]) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "t.csv", "t.md", "t.tex"]


@pytest.mark.parametrize(
    "module, function, words, expected",
    [
        ("clipdr.deploy.export", "export", "export --model a --output c", ("a", "c", "None")),
        ("clipdr.deploy.export", "export", "export --model a --pretrained b.pt --output c", ("a", "c", "b.pt")),
        ("clipdr.deploy.latency", "measure", "latency --model a --export e --output o", ("a", "e", "o", "1", "100")),
    ],
)
def test_commands_hand_their_arguments_on(module, function, words, expected, monkeypatch):
    calls = []
    stand_in = SimpleNamespace(**{function: lambda *args: calls.append(tuple(map(str, args)))})
    monkeypatch.setitem(sys.modules, module, stand_in)
    run(monkeypatch, *words.split())
    assert calls == [expected]


def example(monkeypatch, capsys, *words: str, command=deploy) -> list[str]:
    """The words of the command with which `--help` ends."""
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words, "--help", command=command)
    assert stop.value.code == 0
    return capsys.readouterr().out.strip().splitlines()[-1].split()


@pytest.mark.parametrize("words", ["", "counts", "export", "latency"])
def test_help_ends_with_an_example_that_parses(words, monkeypatch, capsys):
    found = example(monkeypatch, capsys, *words.split())
    assert found[:3] == ["python", "-m", "clipdr.deploy"] and callable(deploy._arguments(found[3:]).run)


def test_the_example_of_importing_weights_imports_them(monkeypatch, capsys):
    found = example(monkeypatch, capsys, command=models)
    assert found[:3] == ["python", "-m", "clipdr.models"]
    calls = []
    stand_in = SimpleNamespace(import_weights=lambda *args: calls.append(tuple(map(str, args))))
    monkeypatch.setitem(sys.modules, "clipdr.models.create", stand_in)
    run(monkeypatch, *found[3:], command=models)
    assert calls == [("MobileCLIP-S0", "mobileclip_s0.pt", "published/mobileclip_s0")]


def test_the_command_of_models_counts_them_too(monkeypatch, capsys):
    run(monkeypatch, "--count", *NAMES, command=models)
    assert capsys.readouterr().out == counts.markdown([counted(name) for name in NAMES]) + "\n"
    with pytest.raises(SystemExit):
        run(monkeypatch, "--model", NAMES[0], command=models)
    assert "--pretrained and --output are needed" in capsys.readouterr().err
