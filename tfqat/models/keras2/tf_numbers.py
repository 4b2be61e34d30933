"""TF numbers: TensorFlow's functions that compute new numbers, as ``keras.ops``.

One Python function for each, with TensorFlow's argument names. Sources: the signatures in its API reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfqat.models.keras2.activations import CHANGED_BY
from tfqat.models.keras2.wiring import UNKNOWN, any_unknown

Function = Callable[..., Any]


def _reduction(reduce: Function) -> Function:
    def function(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return reduce(input_tensor, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims)

    return function


def _norm(tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False) -> Any:
    if ord != "euclidean" and axis is None:
        raise ValueError("expected an axis")
    axis = tuple(axis) if isinstance(axis, list) else axis
    return ops.norm(tensor, ord=None if ord == "euclidean" else ord, axis=axis, keepdims=keepdims)


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    a, b = constant(a), constant(b)
    return ops.matmul(_swapped(a) if transpose_a else a, _swapped(b) if transpose_b else b)


def _swapped(tensor: Any) -> Any:
    return ops.swapaxes(tensor, -1, -2)


def _cast(x: Any, dtype: str) -> Any:
    return ops.cast(x, dtype)


def _clip(t: Any, clip_value_min: Any, clip_value_max: Any) -> Any:
    return ops.clip(t, clip_value_min, clip_value_max)


def _softmax(logits: Any, axis: int = -1) -> Any:
    return ops.softmax(logits, axis=axis)


def _l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
    square = ops.sum(ops.square(x), axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(square, epsilon)))


def _silu(features: Any, beta: float = 1.0) -> Any:
    return ops.silu(features) if beta == 1.0 else features * ops.sigmoid(beta * features)


def _relu(x: Any, alpha: float = 0.0, max_value: Any = None, threshold: float = 0.0) -> Any:
    if threshold or (max_value not in (None, 6.0)) or (alpha and max_value):
        return keras.layers.ReLU(max_value=max_value, negative_slope=alpha, threshold=threshold)(x)
    return ops.leaky_relu(x, negative_slope=alpha) if alpha else (ops.relu6(x) if max_value else ops.relu(x))


def _divide_no_nan(x: Any, y: Any) -> Any:
    return ops.divide_no_nan(x, y)


def _einsum(equation: str, inputs: Any = None) -> Any:
    if inputs is None:
        raise ValueError(
            f"tf_keras keeps no more than the equation {equation!r} of it, not the tensors; use layers.Dot, "
            "layers.EinsumDense or tf.matmul in its place"
        )
    return ops.einsum(equation, *(inputs if isinstance(inputs, list) else [inputs]))


def _tensordot(a: Any, b: Any, axes: Any) -> Any:
    return ops.tensordot(constant(a), constant(b), axes=axes)


def _add(x: Any, y: Any) -> Any:
    # The other way round, Keras 3.15 adds a constant of shape (6, 1) to images of 6 rows row by row.
    return ops.add(y, x) if isinstance(y, np.ndarray) and y.ndim > 1 else ops.add(x, y)


def _add_n(inputs: Any) -> Any:
    total = inputs[0]
    for tensor in inputs[1:]:
        total = ops.add(total, tensor)
    return total


def _where(condition: Any, x: Any, y: Any) -> Any:
    return ops.where(condition, x, y)


def _arg(find: Function) -> Function:
    def function(input: Any, axis: Any = None, output_type: str = "int64") -> Any:
        return ops.cast(find(input, axis=0 if axis is None else axis), output_type)

    return function


def _unary(function: Function, *names: str) -> dict[str, Function]:
    """Functions of one tensor, whatever TensorFlow calls its argument."""
    return dict.fromkeys(names, lambda x: function(x))


def _binary(function: Function, *names: str) -> dict[str, Function]:
    return dict.fromkeys(names, lambda x, y: _computed(function, x, y))


def _computed(function: Function, x: Any, y: Any) -> Any:
    # What is computed of a size that only a batch knows, only a batch knows.
    return UNKNOWN if any_unknown([x, y]) else function(constant(x), constant(y))


def constant(value: Any) -> Any:
    """A list of numbers as the array that TensorFlow makes of it; all else as it is."""
    return np.asarray(value, np.float32) if isinstance(value, list) else value


def _floor_divide(x: Any, y: Any) -> Any:
    return x // y if isinstance(x, int) and isinstance(y, int) else ops.floor_divide(x, y)


def _bias_add(value: Any, bias: Sequence[float], data_format: str | None = None) -> Any:
    if data_format is not None and not data_format.endswith("C"):
        raise ValueError(f"expected channels last, received data_format {data_format}")
    return ops.add(value, np.asarray(bias, np.float32))


# Last part of TensorFlow's name -> the function.
NUMBERS: Mapping[str, Function] = {
    **_unary(ops.relu6, "relu6"),
    **_unary(ops.sigmoid, "sigmoid"),
    **_unary(ops.tanh, "tanh"),
    **_unary(ops.selu, "selu"),
    **_unary(ops.softplus, "softplus"),
    **_unary(ops.softsign, "softsign"),
    **_unary(ops.log_sigmoid, "log_sigmoid"),
    **_unary(lambda x: ops.hard_sigmoid(ops.multiply(x, CHANGED_BY)), "hard_sigmoid"),
    **_unary(ops.exp, "exp", "exponential"),
    **_unary(ops.expm1, "expm1"),
    **_unary(ops.log, "log"),
    **_unary(ops.log1p, "log1p"),
    **_unary(ops.sqrt, "sqrt"),
    **_unary(ops.rsqrt, "rsqrt"),
    **_unary(ops.square, "square"),
    **_unary(ops.abs, "abs"),
    **_unary(ops.negative, "negative", "neg"),
    **_unary(ops.reciprocal, "reciprocal"),
    **_unary(ops.sign, "sign"),
    **_unary(ops.floor, "floor"),
    **_unary(ops.ceil, "ceil"),
    **_unary(ops.round, "round"),
    **_unary(ops.sin, "sin"),
    **_unary(ops.cos, "cos"),
    **_unary(ops.tan, "tan"),
    **_unary(ops.arctan, "atan"),
    **_unary(ops.arcsin, "asin"),
    **_unary(ops.arccos, "acos"),
    **_unary(ops.arcsinh, "asinh"),
    **_unary(ops.arccosh, "acosh"),
    **_unary(ops.arctanh, "atanh"),
    **_unary(ops.sinh, "sinh"),
    **_unary(ops.cosh, "cosh"),
    **_unary(ops.erf, "erf"),
    **_unary(ops.isnan, "is_nan"),
    **_unary(ops.isinf, "is_inf"),
    **_unary(ops.isfinite, "is_finite"),
    **_unary(lambda x: ops.divide_no_nan(ops.ones_like(x), x), "reciprocal_no_nan"),
    **_unary(ops.logical_not, "logical_not"),
    **_unary(ops.zeros_like, "zeros_like"),
    **_unary(ops.ones_like, "ones_like"),
    **_unary(ops.stop_gradient, "stop_gradient"),
    **_unary(lambda x: x, "identity", "convert_to_tensor", "ensure_shape"),
    **_binary(_add, "add"),
    **_binary(ops.subtract, "subtract", "sub"),
    **_binary(ops.multiply, "multiply", "mul"),
    **_binary(ops.divide, "divide", "truediv", "div"),
    **_binary(_floor_divide, "floordiv", "floor_div"),
    **_binary(ops.mod, "floormod", "mod"),
    **_binary(ops.power, "pow"),
    **_binary(ops.maximum, "maximum"),
    **_binary(ops.minimum, "minimum"),
    **_binary(lambda x, y: ops.square(ops.subtract(x, y)), "squared_difference"),
    **_binary(ops.greater, "greater"),
    **_binary(ops.greater_equal, "greater_equal"),
    **_binary(ops.less, "less"),
    **_binary(ops.less_equal, "less_equal"),
    **_binary(ops.equal, "equal"),
    **_binary(ops.not_equal, "not_equal"),
    **_binary(ops.logical_and, "logical_and"),
    **_binary(ops.logical_or, "logical_or"),
    **_binary(ops.logical_xor, "logical_xor"),
    **_binary(ops.arctan2, "atan2"),
    "add_n": _add_n,
    "argmax": _arg(ops.argmax),
    "argmin": _arg(ops.argmin),
    "bias_add": _bias_add,
    "cast": _cast,
    "clip_by_value": _clip,
    "cumsum": lambda x, axis=0: ops.cumsum(x, axis=axis),
    "divide_no_nan": _divide_no_nan,
    "einsum": _einsum,
    "elu": lambda x, alpha=1.0: ops.elu(x, alpha=alpha),
    "gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
    "l2_normalize": _l2_normalize,
    "leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, negative_slope=alpha),
    "log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, axis=axis),
    "norm": _norm,
    "matmul": _matmul,
    "reduce_all": _reduction(ops.all),
    "reduce_any": _reduction(ops.any),
    "reduce_euclidean_norm": lambda input_tensor, axis=None, keepdims=False: _norm(
        input_tensor, axis=axis, keepdims=keepdims
    ),
    "reduce_logsumexp": _reduction(ops.logsumexp),
    "reduce_max": _reduction(ops.max),
    "reduce_mean": _reduction(ops.mean),
    "reduce_min": _reduction(ops.min),
    "reduce_prod": _reduction(ops.prod),
    "reduce_std": _reduction(ops.std),
    "reduce_sum": _reduction(ops.sum),
    "reduce_variance": _reduction(ops.var),
    "relu": _relu,
    "silu": _silu,
    "softmax": _softmax,
    "swish": _silu,
    "tensordot": _tensordot,
    "where": _where,
    "clip": lambda x, min_value, max_value: ops.clip(x, min_value, max_value),
    "max": _reduction(ops.max),
    "mean": _reduction(ops.mean),
    "min": _reduction(ops.min),
    "std": _reduction(ops.std),
    "sum": _reduction(ops.sum),
    "var": _reduction(ops.var),
}
