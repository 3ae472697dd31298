"""An export of a full-size network: ONNX in ONNX Runtime, and the Core ML program run operator by operator."""

import json

import pytest
import torch
from mil import FLOAT16, evaluate

from clipdr.deploy.export import export, relative_error
from clipdr.deploy.probe import inference_network, random_inputs, tower_of

pytestmark = pytest.mark.slow


@torch.inference_mode()
def test_both_towers_of_mobileclip_s0(tmp_path):
    folder = tmp_path / "s0"
    report = export("MobileCLIP-S0", folder)
    assert report == json.loads((folder / "export.json").read_text())
    model = inference_network("MobileCLIP-S0")
    for tower in ("image", "text"):
        net = tower_of(model, tower)
        assert report[tower]["params"] == sum(parameter.numel() for parameter in net.parameters())
        assert report[tower]["onnx"]["max_relative_error"] < 1e-4 < FLOAT16 < report[tower]["spread"]
        inputs = random_inputs(net, 2)
        for x, found in zip(inputs, evaluate(folder / f"{tower}.mlpackage", inputs), strict=True):
            assert relative_error(found, net(x))[1] < FLOAT16
