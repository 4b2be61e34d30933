"""TensorFlow nodes: the raw ops (``AddV2``, ``StridedSlice``) of functional models that TensorFlow 2.0 to 2.3 saved.

An entry of class TensorFlowOpLayer has a NodeDef and those of its inputs that are constants; see the op definitions in
TensorFlow's raw_ops reference.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from tfqat.errors import TfqatError
from tfqat.models.keras2.functions import Function, tf_function

# Raw op -> the function that computes it on the same inputs.
_SAME = {
    "Add": "add", "AddV2": "add", "Sub": "subtract", "Mul": "multiply", "RealDiv": "divide", "Maximum": "maximum",
    "Minimum": "minimum", "Pow": "pow", "SquaredDifference": "squared_difference", "DivNoNan": "divide_no_nan",
    "Neg": "negative", "Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Square": "square",
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "Elu": "elu", "Selu": "selu",
    "Softplus": "softplus", "Softsign": "softsign", "Softmax": "softmax", "LogSoftmax": "log_softmax",
    "Identity": "identity", "Shape": "shape", "Reshape": "reshape", "Transpose": "transpose", "Tile": "tile",
    "ExpandDims": "expand_dims", "BiasAdd": "bias_add", "ClipByValue": "clip_by_value", "FloorDiv": "floordiv",
    "Greater": "greater", "Less": "less", "Equal": "equal", "GatherV2": "gather", "ReverseV2": "reverse",
}  # fmt: skip
_REDUCTIONS = {
    "Mean": "reduce_mean",
    "Sum": "reduce_sum",
    "Max": "reduce_max",
    "Min": "reduce_min",
    "Prod": "reduce_prod",
}
_SLICE_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


def node_function(config: Mapping[str, Any], layer: str) -> tuple[Function, str]:
    """The function of the tensors that the entry is called with, and the op's name.

    Raises:
        TfqatError: an op that has no counterpart; names the layer.
    """
    op, attributes = _node(config["node_def"], layer)
    constants = {int(index): value for index, value in (config.get("constants") or {}).items()}
    compute = _computing(op, attributes, layer)

    def function(first: Any) -> Any:
        inputs = list(first) if isinstance(first, list | tuple) else [first]
        for index in sorted(constants):
            inputs.insert(index, constants[index])
        return compute(*inputs)

    return function, op


def _computing(op: str, attributes: Mapping[str, Any], layer: str) -> Callable[..., Any]:
    """The op as a function of all its inputs."""
    if op in _SAME:
        return tf_function(_SAME[op], layer)
    if op in _REDUCTIONS:
        reduce = tf_function(_REDUCTIONS[op], layer)
        return lambda x, axis: reduce(x, axis=axis, keepdims=bool(attributes.get("keep_dims")))
    if op in _OTHERS:
        return lambda *inputs: _OTHERS[op](attributes, *inputs)
    raise TfqatError(
        f"Layer {layer!r} is the TensorFlow op {op}, which has no counterpart among those that are read. Replace it in "
        "the model by a Keras layer."
    )


def _strided_slice(attributes: Mapping[str, Any], x: Any, begin: Any, end: Any, strides: Any) -> Any:
    masks = {name: int(attributes.get(name, 0)) for name in _SLICE_MASKS}
    parts: list[Any] = []
    for index, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << index
        if masks["ellipsis_mask"] & bit:
            parts.append({"class_name": "__ellipsis__"})
        elif masks["new_axis_mask"] & bit:
            parts.append(None)
        elif masks["shrink_axis_mask"] & bit:
            parts.append(start)
        else:
            start = None if masks["begin_mask"] & bit else start
            stop = None if masks["end_mask"] & bit else stop
            parts.append({"start": start, "stop": stop, "step": step})
    return tf_function("getitem", "")(x, slice_spec=parts)


def _matmul(attributes: Mapping[str, Any], a: Any, b: Any) -> Any:
    flag = lambda *names: any(bool(attributes.get(name)) for name in names)  # noqa: E731
    return tf_function("matmul", "")(
        a, b, transpose_a=flag("transpose_a", "adj_x"), transpose_b=flag("transpose_b", "adj_y")
    )


def _squeeze(attributes: Mapping[str, Any], x: Any) -> Any:
    return tf_function("squeeze", "")(x, axis=attributes.get("squeeze_dims") or None)


# Ops whose inputs or attributes are arranged otherwise: (attributes, *inputs) -> output.
_OTHERS: Mapping[str, Callable[..., Any]] = {
    "StridedSlice": _strided_slice,
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "Squeeze": _squeeze,
    "ConcatV2": lambda attributes, *inputs: tf_function("concat", "")(list(inputs[:-1]), axis=inputs[-1]),
    "Pack": lambda attributes, *inputs: tf_function("stack", "")(list(inputs), axis=attributes.get("axis", 0)),
    "AddN": lambda attributes, *inputs: tf_function("add_n", "")(list(inputs)),
    "LeakyRelu": lambda attributes, x: tf_function("leaky_relu", "")(x, alpha=attributes.get("alpha", 0.2)),
    "Pad": lambda attributes, x, paddings: tf_function("pad", "")(x, paddings),
    "PadV2": lambda attributes, x, paddings, value: tf_function("pad", "")(x, paddings, constant_values=value),
    "MirrorPad": lambda attributes, x, paddings: tf_function("pad", "")(x, paddings, mode=attributes["mode"]),
    "Cast": lambda attributes, x: tf_function("cast", "")(x, attributes["DstT"]),
    "DepthToSpace": lambda attributes, x: tf_function("depth_to_space", "")(x, attributes["block_size"]),
    "SpaceToDepth": lambda attributes, x: tf_function("space_to_depth", "")(x, attributes["block_size"]),
    "Split": lambda attributes, axis, x: tf_function("split", "")(x, attributes["num_split"], axis=axis),
}
_DTYPES = {"DT_FLOAT": "float32", "DT_HALF": "float16", "DT_INT32": "int32", "DT_INT64": "int64", "DT_BOOL": "bool"}


def _node(node_def: Any, layer: str) -> tuple[str, dict[str, Any]]:
    """The op and the attributes of a NodeDef, as JSON or (TensorFlow 2.0 and 2.1) as its bytes in a text."""
    try:
        node = _decoded(node_def) if isinstance(node_def, str) else node_def
        return node["op"], {name: _value(value) for name, value in (node.get("attr") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, _decode_error()) as error:
        raise TfqatError(f"Layer {layer!r} (TensorFlowOpLayer): its node_def cannot be read: {error}") from error


def _decoded(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text)
    proto = import_module("tensorflow").compat.v1.NodeDef.FromString(text.encode())
    return import_module("google.protobuf.json_format").MessageToDict(proto)


def _decode_error() -> type[Exception]:
    error: type[Exception] = import_module("google.protobuf.message").DecodeError
    return error


def _value(attribute: Mapping[str, Any]) -> Any:
    kind: str = next(iter(attribute), "none")
    value: Any = attribute.get(kind)
    if kind == "i":
        return int(value)
    if kind == "type":
        return _DTYPES.get(value, value)
    if kind == "list":
        return [int(item) for item in value.get("i", [])]
    if kind == "s" and isinstance(value, str):
        return base64.b64decode(value).decode(errors="replace")
    return value
