"""Runs Core ML programs, for tests: Core ML itself runs on macOS alone.

It follows the specification of MIL's operators
(apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html), operator by operator.
"""

import numpy as np
import torch
from torch.nn import functional as F

FLOAT16 = 2e-2  # of the largest value: weights of 11 bits in some twenty layers, one after the other


def evaluate(package, inputs):
    """Outputs of a package's program, as torch tensors: numbers are float32 with float16's weights, integers int64."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    (function,) = program.functions.values()
    constants, body = {}, []
    for op in function.operations:
        if op.op_type == "const":
            constants[op.outputs[0].name] = value(op.outputs[0].val)
        else:
            body.append(op)
    found = []
    for x in inputs:
        values = constants | {next(iter(function.inputs)): x}
        for op in body:
            named = {key: argument(var, values) for key, var in op.inputs.items()}
            result = OPERATORS[op.op_type](**named)
            results = result if isinstance(result, (tuple, list)) else [result]
            for var, tensor in zip(op.outputs, results, strict=True):
                assert tuple(tensor.shape) == tuple(var.shape), (op.op_type, tensor.shape, var.shape)
                values[var.name] = tensor
        (output,) = function.outputs
        found.append(values[output.name])
    return found


def argument(var, values):
    return [values[v.name] for v in var] if isinstance(var, (list, tuple)) else values[var.name]


def value(constant):
    """A tensor for an array of numbers, otherwise a plain Python value."""
    if isinstance(constant, np.ndarray) and constant.dtype.kind == "f":
        return torch.from_numpy(constant.astype(np.float32))
    if isinstance(constant, np.floating):
        return torch.tensor(float(constant))
    if isinstance(constant, np.ndarray) and constant.dtype.kind in "iu":
        return torch.from_numpy(constant.astype(np.int64))
    if isinstance(constant, np.ndarray):
        return constant.tolist()
    return constant.item() if isinstance(constant, np.generic) else constant


def conv(x, weight, strides, pad_type, pad, dilations, groups, bias=None):
    assert pad_type in ("custom", "valid")
    if pad_type == "custom":  # [start, end] of each axis; torch starts with the last one
        x = F.pad(x, [int(n) for axis in reversed(pad.reshape(-1, 2).tolist()) for n in axis])
    run = F.conv1d if x.ndim == 3 else F.conv2d
    return run(x, weight, bias, stride=strides.tolist(), dilation=dilations.tolist(), groups=int(groups))


def avg_pool(x, kernel_sizes, strides, pad_type, pad, exclude_padding_from_average, ceil_mode):
    assert pad_type in ("custom", "valid")
    (top, bottom), (left, right) = pad.reshape(-1, 2).tolist() if pad_type == "custom" else [(0, 0), (0, 0)]
    assert (top, left) == (bottom, right)
    inside = not exclude_padding_from_average
    return F.avg_pool2d(x, kernel_sizes.tolist(), strides.tolist(), (top, left), bool(ceil_mode), inside)


def slice_by_index(x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    index = []
    for axis in range(x.ndim):
        start = None if begin_mask and begin_mask[axis] else int(begin[axis])
        stop = None if end_mask and end_mask[axis] else int(end[axis])
        step = int(stride[axis]) if stride is not None else 1
        index.append(start if squeeze_mask and squeeze_mask[axis] else slice(start, stop, step))
    return x[tuple(index)]


def split(x, axis, split_sizes=None, num_splits=None):
    return torch.tensor_split(x, int(num_splits), axis) if split_sizes is None else x.split(split_sizes.tolist(), axis)


def squeeze(x, axes):
    return x.squeeze(tuple(axes.tolist()))


def expand_dims(x, axes):
    for axis in sorted(int(a) % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def gather(x, indices, axis, batch_dims, validate_indices):
    assert batch_dims == 0
    index = torch.as_tensor(indices)
    return (
        x.index_select(int(axis), index.reshape(-1)).unflatten(int(axis), index.shape)
        if index.ndim
        else x.select(axis, index)
    )


def gather_nd(x, indices, batch_dims, validate_indices):
    assert batch_dims == 0
    return x[tuple(indices.unbind(-1))]


def cast(x, dtype):
    limits = {"int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1)}
    if dtype in limits:
        assert limits[dtype][0] <= x.min() and x.max() <= limits[dtype][1], "an integer does not fit"
    return x.float() if dtype.startswith("fp") else x.long()


def matmul(x, y, transpose_x, transpose_y):
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def layer_norm(x, axes, gamma, beta, epsilon):
    assert axes.tolist() in ([-1], [x.ndim - 1])
    return F.layer_norm(x, x.shape[-1:], gamma, beta, float(epsilon))


def batch_norm(x, mean, variance, gamma, beta, epsilon):
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def gelu(x, mode):
    assert mode == "EXACT"
    return F.gelu(x)


def reduce_argmax(x, axis, keep_dims, output_dtype="int32"):
    return x.argmax(int(axis), bool(keep_dims))


OPERATORS = {
    "add": lambda x, y: x + y,
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "cast": cast,
    "concat": lambda values, axis, interleave: torch.cat(values, int(axis)),
    "conv": conv,
    "equal": lambda x, y: x == y,
    "expand_dims": expand_dims,
    "gather": gather,
    "gather_nd": gather_nd,
    "gelu": gelu,
    "greater_equal": lambda x, y: x >= y,
    "layer_norm": layer_norm,
    "linear": lambda x, weight, bias: F.linear(x, weight, bias),
    "matmul": matmul,
    "mul": lambda x, y: x * y,
    "reduce_argmax": reduce_argmax,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), bool(keep_dims)),
    "relu": lambda x: x.relu(),
    "reshape": lambda x, shape: x.reshape(shape.tolist()),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "sigmoid": lambda x: x.sigmoid(),
    "slice_by_index": slice_by_index,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "split": split,
    "squeeze": squeeze,
    "stack": lambda values, axis: torch.stack([torch.as_tensor(v).reshape(-1) for v in values], int(axis)),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
}
