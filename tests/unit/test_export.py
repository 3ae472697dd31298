"""Exported files give what torch gives, on networks in which every weight has a say."""

import json
import shutil

import coremltools
import onnx
import pytest
import torch
from torch import nn

from clipdr.deploy import export as exporter
from clipdr.deploy import probe
from clipdr.deploy.export import TOLERANCE, check_coreml, check_onnx
from clipdr.deploy.probe import inference_network, random_inputs, tower_of
from clipdr.errors import UserError
from clipdr.models.build import build
from clipdr.models.registry import configuration

NAME = "mini-mct-2"

# ViT-B-32's parts in small: a class token, QuickGELU, causal attention and pooling by argmax.
OPEN_CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 9, "vocab_size": 40000, "width": 32, "heads": 2, "layers": 2},
}
# RN50's: a stem of three convolutions and pooling by attention.
RESNET = OPEN_CLIP | {
    "quick_gelu": False,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 16},
}
# SigLIP's text encoder: no mask, the text's last position.
SIGLIP = OPEN_CLIP | {
    "text_cfg": OPEN_CLIP["text_cfg"] | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}


@pytest.fixture(scope="module")
def model():
    return inference_network(NAME)


def towers(model, tower):
    """(tower, inputs, outputs)"""
    net = tower_of(model, tower)
    inputs = random_inputs(net, 5)
    with torch.inference_mode():
        return net, inputs, [net(x) for x in inputs]


# --- the network that is exported ---


@pytest.mark.parametrize("name", [NAME, "mini-mci-base", "mini-vit-base"])
def test_every_weight_has_a_say(name):
    """A tensor of weights that got lost or replaced would be noticed."""
    model = inference_network(name)
    for tower in ("image", "text"):
        net = tower_of(model, tower)
        x = torch.cat(random_inputs(net, 2))
        with torch.inference_mode():
            whole = net(x)
        for key, weight in net.named_parameters():
            if key.endswith("in_proj_bias"):  # a third of it, the keys' bias, can do nothing in a softmax
                continue
            with torch.inference_mode():
                before = weight.clone()
                weight.copy_(before.flip(0) if before.std() > 1e-3 else before * 2)
                error = exporter.relative_error(net(x), whole)[1]
                weight.copy_(before)
            assert error > 5 * TOLERANCE, (tower, key, error)


def test_without_disturbing_a_lost_block_is_not_noticed():
    """Why `disturb` is there."""
    torch.manual_seed(0)
    net = build(configuration(NAME), NAME).eval().text
    (x,) = random_inputs(net, 1)
    with torch.inference_mode():
        whole = net(x)
        net.transformer.resblocks[0].forward = lambda x, **_: x
        assert exporter.relative_error(net(x), whole)[1] < TOLERANCE


def test_random_networks_are_always_the_same(model):
    again = inference_network(NAME).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_trained_weights_are_not_touched(tmp_path):
    torch.manual_seed(1)
    trained = build(configuration(NAME), NAME)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    loaded = probe.training_network(NAME, tmp_path / "weights.pt").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in trained.state_dict().items())


@pytest.mark.parametrize("config", [configuration(NAME), {"model_cfg": OPEN_CLIP}], ids=["eos", "argmax"])
def test_random_texts_end_where_the_tower_pools(config):
    text = build(config, "small").text
    ends = []
    for tokens in random_inputs(text, 6):
        assert tokens.shape == (1, text.context_length) and tokens.dtype == torch.int64
        row = tokens[0].tolist()
        end = row.index(text.eos_id) if text.pool_type == "eos" else int(tokens.argmax())
        assert 0 not in row[:end] and not any(row[end + 1 :])
        ends.append(end)
    assert ends[0] == 1 and ends[-1] == text.context_length - 1 and len(set(ends)) == 6


# --- ONNX ---


@pytest.mark.slow
def test_export_writes_files_and_a_report(exported):
    report = json.loads((exported / "export.json").read_text())
    assert report["network"] == NAME and report["weights"] == {"random": True, "seed": 0}
    assert report["normalised"] is False and report["logit_scale"] == pytest.approx(1 / 0.07)
    assert report["versions"].keys() >= {"torch", "onnx", "onnxscript", "onnxruntime", "coremltools"}
    assert {path.name for path in exported.iterdir()} == {
        *("export.json", "image.onnx", "text.onnx", "image.mlpackage", "text.mlpackage")
    }
    for tower, shape in (("image", [1, 3, 32, 32]), ("text", [1, 16])):
        entry, file = report[tower], exported / f"{tower}.onnx"
        assert entry["input"]["shape"] == shape and entry["output"] == {"name": "embedding", "shape": [1, 64]}
        assert 0 <= entry["onnx"]["max_relative_error"] <= TOLERANCE < 0.1 < entry["spread"]
        assert entry["onnx"]["bytes"] == file.stat().st_size > 4 * entry["params"]
        assert entry["onnx"]["outputs_checked"] is True and entry["onnx"]["opset"] >= 17
        assert entry["coreml"]["outputs_checked"] is False and "macOS" in entry["coreml"]["reason"]
        assert entry["coreml"]["weights"] == pytest.approx(entry["params"], rel=0.02)
        assert 2 * entry["params"] < entry["coreml"]["bytes"] < 3 * entry["params"]


def test_onnx_is_one_file_without_traces_of_this_machine(exported):
    for tower in ("image", "text"):
        model = onnx.load(exported / f"{tower}.onnx", load_external_data=False)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert str(exporter.__file__).rpartition("/")[0].encode() not in model.SerializeToString()
        assert b"site-packages" not in model.SerializeToString()


@pytest.mark.parametrize("tower", ["image", "text"])
def test_onnx_gives_what_torch_gives(exported, model, tower):
    """Compared by onnx's own evaluator too, operator by operator in numpy: it shares no code with ONNX Runtime."""
    from onnx.reference import ReferenceEvaluator

    path = exported / f"{tower}.onnx"
    net, inputs, outputs = towers(model, tower)
    name = probe.TOWERS[tower]
    assert check_onnx(path, name, inputs, outputs, NAME)["max_relative_error"] <= TOLERANCE
    evaluator = ReferenceEvaluator(str(path))
    (found,) = evaluator.run(None, {name: inputs[2].numpy()})
    assert exporter.relative_error(torch.from_numpy(found), outputs[2])[1] <= TOLERANCE


def test_a_changed_weight_is_refused(exported, model, tmp_path):
    path = tmp_path / "text.onnx"
    changed = onnx.load(exported / "text.onnx")
    tensor = max((t for t in changed.graph.initializer if "resblocks" in t.name), key=lambda t: len(t.raw_data))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] += 0.1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(changed, path)
    _, inputs, outputs = towers(model, "text")
    with pytest.raises(UserError, match=r"text.onnx differs from torch by .* nothing is kept"):
        check_onnx(path, "tokens", inputs, outputs, NAME)


def test_other_inputs_are_refused(exported, model):
    _, inputs, outputs = towers(model, "image")
    with pytest.raises(UserError, match="takes and gives"):
        check_onnx(exported / "image.onnx", "img", inputs, outputs, NAME)


def test_a_failed_export_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "write_onnx", lambda *args: shutil.copy(tmp_path / "kept.onnx", args[2]))
    graph = '<ir_version: 10, opset_import: ["": 20]> g (float[1,3,32,32] image) => (float[1,64] embedding) { %s }'
    body = "a = ReduceMean<keepdims=0>(image) b = Constant<value_ints=[1,64]>() embedding = Expand(a, b)"
    onnx.save(onnx.parser.parse_model(graph % body), tmp_path / "kept.onnx")
    with pytest.raises(UserError, match="nothing is kept"):
        exporter.export(NAME, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"kept.onnx"}


def face(package):
    """(name, type, shape) of the input and the output of a Core ML package, by its specification."""
    description = coremltools.utils.load_spec(str(package)).description
    arrays = [(feature.name, feature.type.multiArrayType) for feature in (*description.input, *description.output)]
    return [(name, array.ArrayDataType.Name(array.dataType), list(array.shape)) for name, array in arrays]


class WholeSlice(nn.Module):
    """SigLIP's image encoder has such a slice: no class token in front of the patches to leave out."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 4)

    def forward(self, x):
        return self.proj(x.mean((2, 3))[:, 0:])


@torch.no_grad()
def test_a_slice_of_everything_is_converted(tmp_path):
    torch.manual_seed(0)
    net, x = WholeSlice().eval(), torch.rand(1, 3, 8, 8)
    exporter.write_coreml(torch.export.export(net, (x,)), "image", tmp_path / "x.mlpackage", "whole")
    assert face(tmp_path / "x.mlpackage") == [("image", "FLOAT32", [1, 3, 8, 8]), ("embedding", "FLOAT32", [1, 4])]


class Unknown(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_an_operator_without_a_counterpart_is_named(tmp_path):
    program = torch.export.export(Unknown().eval(), (torch.rand(1, 3, 8, 8),))
    with pytest.raises(UserError, match=r"n, image tower: torch cannot export it to ONNX"):
        exporter.write_onnx(program, "image", tmp_path / "x.onnx", "n, image tower")
    with pytest.raises(UserError, match=r"n, image tower: Core ML Tools cannot convert it: .*bessel_j0"):
        exporter.write_coreml(program, "image", tmp_path / "x.mlpackage", "n, image tower")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MobileCLIP-S9", "not known; did you mean 'MobileCLIP-S"),
        ("mini-captioner", "not CoCa"),
        ("roberta-ViT-B-32", "Hugging Face"),
    ],
)
def test_networks_that_cannot_be_exported(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        exporter.export(name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- Core ML ---


@pytest.mark.parametrize(
    ("tower", "input_face"), [("image", ("image", "FLOAT32", [1, 3, 32, 32])), ("text", ("tokens", "INT32", [1, 16]))]
)
def test_core_ml_packages_have_the_towers_face_and_its_weights_in_float16(exported, model, tower, input_face):
    package = exported / f"{tower}.mlpackage"
    assert face(package) == [input_face, ("embedding", "FLOAT32", [1, 64])]
    (file,) = package.rglob("weight.bin")
    params = sum(parameter.numel() for parameter in tower_of(model, tower).parameters())
    assert file.stat().st_size == pytest.approx(2 * params, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "tower"),
    [("mini-mci-base", "image"), ("mini-mci-base", "text"), ("mini-fastvit-base", "image"), ("mini-vit-base", "image")]
    + [
        (NAME, "image"),
        (NAME, "text"),
        (OPEN_CLIP, "image"),
        (OPEN_CLIP, "text"),
        (RESNET, "image"),
        (SIGLIP, "image"),
        (SIGLIP, "text"),
    ],
    ids=[
        "mci",
        "base",
        "fastvit",
        "vit",
        "byobnet",
        "mct",
        "open_clip-vit",
        "open_clip-text",
        "open_clip-resnet",
        "siglip-image",
        "siglip-text",
    ],
)
def test_all_kinds_of_towers(config, tower, tmp_path):
    if isinstance(config, dict):
        torch.manual_seed(0)
        model = build({"model_cfg": config}, "small").eval()
        probe.disturb(model)
    else:
        model = inference_network(config)
    net, inputs, outputs = towers(model, tower)
    name = probe.TOWERS[tower]
    program = torch.export.export(net, (inputs[0],))
    exporter.write_onnx(program, name, tmp_path / "x.onnx", "small")
    check_onnx(tmp_path / "x.onnx", name, inputs, outputs, "small")
    exporter.write_coreml(program, name, tmp_path / "x.mlpackage", "small")
    check_coreml(tmp_path / "x.mlpackage", net, name, inputs[0], outputs[0], "small")


def test_core_ml_packages_take_and_give_what_they_should(exported, model):
    net, inputs, outputs = towers(model, "text")
    package = exported / "text.mlpackage"
    report = check_coreml(package, net, "tokens", inputs[0], outputs[0], NAME)
    assert report["specification_version"] == 8 and report["operations"]["gelu"] == 6
    with pytest.raises(UserError, match="takes and gives"):
        check_coreml(package, net, "ids", inputs[0], outputs[0], NAME)
    with pytest.raises(UserError, match=r"takes and gives .*\[1, 64\].*, not .*\[1, 63\]"):
        check_coreml(package, net, "tokens", inputs[0], outputs[0][:, 1:], NAME)
    net.transformer.resblocks.append(nn.Linear(100, 100))
    with pytest.raises(UserError, match="holds weights"):
        check_coreml(package, net, "tokens", inputs[0], outputs[0], NAME)
    net.transformer.resblocks.pop(-1)
