"""Both towers of a network as files for other runtimes: ONNX, and Core ML as the paper measured it on a phone.

Decided here:
* The reparameterized network is exported, each tower by itself, for a batch of one, as the paper measures latency.
  Inputs are `image`, float32 [1, 3, S, S] in the range that the network's `preprocess` leaves, and `tokens`, integers
  [1, L] (int64 in ONNX, int32 in Core ML); the output is `embedding`, float32 [1, D]. It is what the tower gives,
  not L2-normalised: divide it by its norm before comparing.
* ONNX is float32 with the weights inside, so that a tower is one file. Core ML computes in float16, the default of Core
  ML Tools since the version that the paper used, and the only one that a phone's neural engine has.
* An ONNX file is kept only if it gives torch's embeddings, see `TOLERANCE`. Core ML runs on macOS alone, and is never
  run here: what the package contains is compared instead, that is inputs, output, and how many weights.
* A network without a file of weights is random, and its weights are made such that the comparison means something, see
  `clipdr.deploy.probe`. Its files are good for measuring latency, and for nothing else.
"""

import contextlib
import io
import json
import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

from clipdr.deploy.probe import INPUTS, SEED, TOWERS, inference_network, random_inputs, tower_of
from clipdr.errors import UserError
from clipdr.files import atomic_dir, sha256_file
from clipdr.models.registry import configuration
from clipdr.progress import log

OUTPUT = "embedding"
REPORT = "export.json"
TOLERANCE = 1e-4  # of max |file - torch| / max |torch|, for each input
# Weights that a Core ML package may hold more or less of than the tower: norms are folded into convolutions, and a
# causal mask is a constant.
WEIGHTS_TOLERANCE = 0.02


def export(name: str, output: Path, pretrained: Path | None = None) -> dict:
    """Write `{image,text}.onnx`, `{image,text}.mlpackage` and `export.json` into a new folder, and return the latter.

    Args:
        name: of config/models or of open_clip.
        output: folder to make.
        pretrained: file of weights, see `clipdr.models.weights`; without one they are random.

    Raises:
        UserError: a network that is unknown or has another text tower than open_clip's, a file of weights that does
            not fit, a folder that holds something, or an export that does not give what torch gives; then nothing is
            kept.
    """
    with atomic_dir(output) as folder:
        config = configuration(name)
        model = inference_network(name, pretrained)
        if pretrained is None:
            log.info("%s: random weights, good for measuring latency and nothing else", name)
        report = {
            "network": name,
            "weights": _weights(pretrained),
            "preprocess_cfg": config.get("preprocess_cfg"),
            "logit_scale": model.logit_scale.exp().item(),
            "normalised": False,
            "versions": versions(),
        }
        for tower in TOWERS:
            report[tower] = _export_tower(model, tower, folder, name)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    return report


def versions() -> dict[str, str]:
    """Of the packages that decide what an export contains."""
    import coremltools
    import onnx
    import onnxruntime
    import onnxscript
    import open_clip
    import timm

    packages = (torch, timm, open_clip, onnx, onnxscript, onnxruntime, coremltools)
    return {package.__name__: package.__version__ for package in packages}


def _weights(pretrained: Path | None) -> dict:
    if pretrained is None:
        return {"random": True, "seed": SEED}
    return {"random": False, "file": Path(pretrained).name, "sha256": sha256_file(Path(pretrained))}


def _export_tower(model: nn.Module, tower: str, folder: Path, name: str) -> dict:
    """Both files of a tower, and what export.json says of it."""
    net, what = tower_of(model, tower), f"{name}, {tower} tower"
    inputs = random_inputs(net, INPUTS)
    with torch.inference_mode():
        outputs = [net(x) for x in inputs]
    onnx_file, package = folder / f"{tower}.onnx", folder / f"{tower}.mlpackage"
    # Not torch.jit.trace, which is deprecated and keeps torch's fused attention, an operator that Core ML Tools lack.
    program = torch.export.export(net, (inputs[0],))
    write_onnx(program, TOWERS[tower], onnx_file, what)
    onnx = check_onnx(onnx_file, TOWERS[tower], inputs, outputs, what)
    log.info("%s: ONNX of %.1f MB, largest relative error %.1e", what, onnx["bytes"] / 1e6, onnx["max_relative_error"])
    write_coreml(program, TOWERS[tower], package, what)
    coreml = check_coreml(package, net, TOWERS[tower], inputs[0], outputs[0], what)
    log.info("%s: Core ML of %.1f MB, %d weights", what, coreml["bytes"] / 1e6, coreml["weights"])
    return {
        "input": {"name": TOWERS[tower], "shape": list(inputs[0].shape)},
        "output": {"name": OUTPUT, "shape": list(outputs[0].shape)},
        "params": sum(parameter.numel() for parameter in net.parameters()),
        "spread": _spread(outputs),
        "onnx": onnx,
        "coreml": coreml,
    }


def _spread(outputs: list[Tensor]) -> float:
    """The smallest relative error between two outputs: a file that ignored its input would be that far off."""
    pairs = [(a, b) for i, a in enumerate(outputs) for b in outputs[:i]]
    return min(relative_error(a, b)[1] for a, b in pairs)


def relative_error(found: Tensor, true: Tensor) -> tuple[float, float]:
    """(max |found - true|, the same divided by max |true|)."""
    absolute = (found - true).abs().max().item()
    return absolute, absolute / true.abs().max().item()


def _compare(found: list[Tensor], true: list[Tensor], tolerance: float, what: str) -> dict[str, float]:
    """The largest errors; UserError if one is above `tolerance` or no number."""
    errors = [relative_error(a, b) for a, b in zip(found, true, strict=True)]
    absolute, relative = (max(column) for column in zip(*errors, strict=True))
    if not all(error[1] <= tolerance for error in errors):
        raise UserError(
            f"{what} differs from torch by {relative:.1e} of the largest value, more than {tolerance:.0e}; nothing is "
            "kept: install the versions of requirements.lock"
        )
    return {"max_absolute_error": absolute, "max_relative_error": relative, "tolerance": tolerance}


def write_onnx(program: torch.export.ExportedProgram, input_name: str, path: Path, what: str) -> None:
    """One self-contained file, float32, for inputs of exactly the program's shape; errors call the tower `what`."""
    try:
        exported = torch.onnx.export(program, dynamo=True, input_names=[input_name], verbose=False)
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"{what}: torch cannot export it to ONNX: {_first_line(error)}; nothing is kept") from error
    graph = exported.model.graph
    # Names are set here, because the exporter does not see that a tower has an inner value `embedding` as well.
    for value in (output for node in graph for output in node.outputs):
        value.name = f"{value.name}_" if value.name in (input_name, OUTPUT) else value.name
    graph.outputs[0].name = OUTPUT
    # Stack traces with the paths of this machine, and the whole program as text.
    for part in (exported.model, graph, *graph, *graph.inputs, *(output for node in graph for output in node.outputs)):
        part.metadata_props.clear()
    exported.save(path, external_data=False)


def onnx_session(path: Path, threads: int = 1):
    """An ONNX Runtime session on the CPU, fully optimised: one operator at a time, each on `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_onnx(path: Path, input_name: str, inputs: list[Tensor], outputs: list[Tensor], what: str) -> dict:
    """Compare the file with torch; what export.json says of it.

    Args:
        path: the file.
        input_name: of its input.
        inputs: of the tower.
        outputs: what torch gives for them.
        what: the tower, for errors.

    Raises:
        UserError: another input or output than it must have, or a relative error above `TOLERANCE`.
    """
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnx_session(path)
    faces = [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    kind = "tensor(int64)" if inputs[0].dtype == torch.int64 else "tensor(float)"
    expected = [(input_name, kind, list(inputs[0].shape)), (OUTPUT, "tensor(float)", list(outputs[0].shape))]
    if faces != expected:
        raise UserError(f"{what}, {path.name}: takes and gives {faces}, not {expected}; nothing is kept")
    found = [torch.from_numpy(session.run(None, {input_name: x.numpy()})[0]) for x in inputs]
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "opset": next(entry.version for entry in model.opset_import if entry.domain == ""),
        "precision": "float32",
        "outputs_checked": True,
        "inputs_compared": len(inputs),
        **_compare(found, outputs, TOLERANCE, f"{what}, {path.name}"),
    }


def write_coreml(program: torch.export.ExportedProgram, input_name: str, path: Path, what: str) -> None:
    """A Core ML package for the paper's iOS 17, float16 inside and float32 outside; errors call the tower `what`."""
    import coremltools as ct
    import numpy as np

    (example,), _ = program.example_inputs
    kind = np.float32 if example.is_floating_point() else np.int32
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            model = ct.convert(
                _without_aliases(program.run_decompositions({})),
                inputs=[ct.TensorType(input_name, tuple(example.shape), kind)],
                outputs=[ct.TensorType(OUTPUT, dtype=np.float32)],
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=ct.precision.FLOAT16,
                skip_model_load=True,
            )
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise UserError(f"{what}: Core ML Tools cannot convert it: {_first_line(error)}; nothing is kept") from error
    model.save(str(path))
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # no part of Core ML's format


def _without_aliases(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without `alias`, which does nothing and Core ML Tools lacks; a slice of everything is one."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        program.graph.erase_node(node)
    return program


def check_coreml(path: Path, net: nn.Module, input_name: str, example: Tensor, output: Tensor, what: str) -> dict:
    """Compare what the package contains with the tower; what export.json says of it. Nothing is run.

    Args:
        path: the package.
        net: the tower.
        input_name: of its input.
        example: an input of the tower.
        output: what torch gives for it; only its shape counts.
        what: the tower, for errors.

    Raises:
        UserError: another input or output than it must have, a number of weights that differs from the tower's by more
            than `WEIGHTS_TOLERANCE`, or weights that are not float16.
    """
    import coremltools as ct

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    faces = [_face(feature) for feature in (*spec.description.input, *spec.description.output)]
    kind = "FLOAT32" if example.is_floating_point() else "INT32"
    expected = [(input_name, kind, list(example.shape)), (OUTPUT, "FLOAT32", list(output.shape))]
    if faces != expected:
        raise UserError(f"{what}, {path.name}: takes and gives {faces}, not {expected}; nothing is kept")
    operations = _operations(spec)
    weights = _weight_counts(operations)
    params = sum(parameter.numel() for parameter in net.parameters())
    if weights.keys() != {"FLOAT16"} or abs(weights["FLOAT16"] / params - 1) > WEIGHTS_TOLERANCE:
        raise UserError(f"{what}, {path.name}: holds weights {dict(weights)}, not {params} of FLOAT16; nothing is kept")
    return {
        "file": path.name,
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "specification_version": spec.specificationVersion,
        "target": "iOS17",
        "precision": "float16",
        "weights": weights["FLOAT16"],
        "operations": dict(sorted(Counter(op.type for op in operations if op.type != "const").items())),
        "outputs_checked": False,
        "reason": "not run, because Core ML runs on macOS alone; input, output and number of weights were compared",
    }


def _face(feature) -> tuple[str, str, list[int]]:
    """(name, type, shape) of an input or output."""
    array = feature.type.multiArrayType
    return feature.name, array.ArrayDataType.Name(array.dataType), list(array.shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _operations(spec) -> list:
    """All operations of the one program of a package; constants are operations too."""
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return list(block.operations)


def _weight_counts(operations: list) -> Counter:
    """Type -> number of elements of the constants that lie in the file of weights; small ones lie in the program."""
    counts = Counter()
    for operation in operations:
        if operation.type == "const" and operation.attributes["val"].WhichOneof("value") == "blobFileValue":
            tensor = operation.attributes["val"].type.tensorType
            sizes = [dimension.constant.size for dimension in tensor.dimensions]
            counts[
                type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
            ] += math.prod(sizes)
    return counts
