"""Functions of TensorFlow that a Keras 2 model calls on its tensors (``x + y``, ``tf.concat``), as ``keras.ops``.

One Python function for each, with TensorFlow's argument names; what it does not take by name is an error that names
the layer. TensorFlow's default ``None`` is left out before. Sources: the signatures in TensorFlow's API reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfqat.errors import TfqatError
from tfqat.models.keras2.activations import CHANGED_BY
from tfqat.models.keras2.layers import INTERPOLATIONS
from tfqat.models.keras2.wiring import UNKNOWN, Shape, Unknown
from tfqat.models.reason import last_said

Function = Callable[..., Any]
# Where TensorFlow's names mean what the table says (tf.image.transpose is no tf.transpose).
_NAMESPACES = frozenset({"", "math", "nn", "linalg", "dtypes", "__operators__", "keras.backend", "keras.activations"})
_IMAGES = frozenset({"resize", "flip_left_right", "flip_up_down"})
_UNKNOWN_SIZE = "it needs a size that only a batch knows; give the Input a fixed shape"
# As many numbers in a row as positions of a sequence or an image have at most.
_LONGEST = 2**24
# Arguments of TensorFlow with their default, which Keras' functions have not.
_NEUTRAL: Mapping[str, Any] = {
    "conjugate": False,
    "exclusive": False,
    "reverse": False,
    "preserve_aspect_ratio": False,
    "adjoint_a": False,
    "adjoint_b": False,
    "a_is_sparse": False,
    "b_is_sparse": False,
    "batch_dims": 0,
}


def tf_function(symbol: str, layer: str) -> Function:
    """The function for a TensorFlow symbol, as TFOpLambda's config has it (``math.reduce_mean``).

    Raises:
        TfqatError: it has no counterpart in the table; names the layer.
    """
    namespace, _, name = symbol.removeprefix("compat.v1.").rpartition(".")
    # TensorFlow 1's resize has its pixels' corners elsewhere.
    known = namespace in _NAMESPACES or (symbol.startswith("image.") and name in _IMAGES)
    if name not in _TABLE or not known:
        raise TfqatError(
            f"Layer {layer!r} calls the TensorFlow function tf.{symbol}, which has no counterpart among those that are "
            f"read ({len(_TABLE)} functions: arithmetic, activations, reductions, shapes, slices). Replace it in the "
            "model by a Keras layer."
        )
    return _TABLE[name]


def called(function: Function, layer: str, symbol: str, first: Any, arguments: Mapping[str, Any]) -> Any:
    """What the function gives; a value that is no Keras tensor comes as plain Python or numpy.

    Raises:
        TfqatError: arguments that the function does not take, or Keras cannot.
    """
    given = {key: value for key, value in arguments.items() if not (key in _NEUTRAL and value == _NEUTRAL[key])}
    try:
        _check_sizes(symbol, [first, *given.values()])
        result = function(first, **given)
    except (TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
        why = _UNKNOWN_SIZE if _unknown(_sizes([first, *given.values()])) else last_said(error)
        raise TfqatError(f"Layer {layer!r} calls tf.{symbol} in a way that cannot be read: {why}") from error
    if isinstance(result, Shape):
        return result
    return keras.tree.map_structure(_settled, result)


def _check_sizes(symbol: str, arguments: list[Any]) -> None:
    """Raises ValueError where a function of a tensor needs a size that only a batch knows."""
    of_tensors = any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(arguments))
    if of_tensors and _unknown(_sizes(arguments)) and symbol.split(".")[-1].lower() != "reshape":
        raise ValueError(_UNKNOWN_SIZE)


def _sizes(arguments: list[Any]) -> list[Any]:
    """What may be a size among the arguments."""
    leaves = keras.tree.flatten(arguments)
    return [size for leaf in leaves for size in (leaf if isinstance(leaf, Shape) else [leaf])]


def _unknown(sizes: list[Any]) -> bool:
    # By identity: a tensor compares with its elements.
    return any(size is UNKNOWN for size in sizes)


def _settled(value: Any) -> Any:
    """A number computed from shapes as a plain number."""
    if value is None or isinstance(value, keras.KerasTensor | Unknown | int | float | bool | np.ndarray):
        return value
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array


def _getitem(tensor: Any, slice_spec: Any) -> Any:
    parts = [_slice(part) for part in (slice_spec if isinstance(slice_spec, list) else [slice_spec])]
    if isinstance(tensor, Shape):
        found = tensor[parts[0]]
        return Shape(found) if isinstance(parts[0], slice) else found
    return tensor[tuple(parts)]


def _slice(part: Any) -> Any:
    if isinstance(part, Mapping) and part.get("class_name") in ("__ellipsis__", "ellipsis"):
        return Ellipsis
    if isinstance(part, Mapping):
        return slice(part["start"], part["stop"], part["step"])
    return part


def _reshape(tensor: Any, shape: Any) -> Any:
    wanted = list(shape) if isinstance(shape, list | tuple) else [shape]
    unknown = [index for index, size in enumerate(wanted) if size is UNKNOWN]
    if len(unknown) > 1 or (unknown and -1 in wanted and None in tensor.shape[1:]):
        raise ValueError(
            f"the shape {wanted} depends on more than one size that only a batch knows; give the Input a fixed shape"
        )
    if unknown and -1 in wanted:
        rest = math.prod(size for size in wanted if size not in (UNKNOWN, -1))
        wanted[wanted.index(-1)] = math.prod(tensor.shape[1:]) // rest
    if unknown:
        wanted[unknown[0]] = -1
    return ops.reshape(tensor, wanted)


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
    a, b = _constant(a), _constant(b)
    return ops.matmul(_swapped(a) if transpose_a else a, _swapped(b) if transpose_b else b)


def _swapped(tensor: Any) -> Any:
    return ops.swapaxes(tensor, -1, -2)


def _cast(x: Any, dtype: str) -> Any:
    return ops.cast(x, dtype)


def _split(value: Any, num_or_size_splits: Any, axis: int = 0, num: Any = None) -> Any:
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis=axis)
    sizes = list(num_or_size_splits)
    if -1 in sizes:
        sizes[sizes.index(-1)] = value.shape[axis] - sum(size for size in sizes if size != -1)
    return ops.split(value, np.cumsum(sizes)[:-1].tolist(), axis=axis)


def _pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: float = 0) -> Any:
    how = {"constant_values": constant_values} if mode.lower() == "constant" else {}
    return ops.pad(tensor, [tuple(pair) for pair in paddings], mode=mode.lower(), **how)


def _transpose(a: Any, perm: Any = None) -> Any:
    return ops.transpose(a, perm)


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


def _resize(images: Any, size: Any, method: str = "bilinear", antialias: bool = False) -> Any:
    if method.lower() not in INTERPOLATIONS:
        raise ValueError(f"expected one of the methods {', '.join(INTERPOLATIONS)}, received {method}")
    return ops.image.resize(images, tuple(size), interpolation=method.lower(), antialias=antialias)


def _depth_to_space(input: Any, block_size: int) -> Any:
    _, height, width, channels = input.shape
    deep = channels // block_size**2
    x = ops.reshape(input, (-1, height, width, block_size, block_size, deep))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * block_size, width * block_size, deep))


def _space_to_depth(input: Any, block_size: int) -> Any:
    _, height, width, channels = input.shape
    rows, columns = height // block_size, width // block_size
    x = ops.reshape(input, (-1, rows, block_size, columns, block_size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, block_size**2 * channels))


def _pool(pool: Function) -> Function:
    def function(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC") -> Any:
        if data_format != "NHWC":
            raise ValueError(f"expected data_format NHWC, received {data_format}")
        return pool(input, _inner(ksize), _inner(strides), padding=padding.lower(), data_format="channels_last")

    return function


def _inner(sizes: Any) -> Any:
    """The two middle ones of four sizes, one each for images, rows, columns and channels."""
    if isinstance(sizes, int):
        return sizes
    return tuple(sizes[1:3]) if len(sizes) == 4 else tuple(sizes) * (2 if len(sizes) == 1 else 1)


def _gather(params: Any, indices: Any, axis: Any = None) -> Any:
    return ops.take(params, indices, axis=axis or 0)


def _divide_no_nan(x: Any, y: Any) -> Any:
    return ops.divide_no_nan(x, y)


def _reverse(tensor: Any, axis: Any) -> Any:
    return ops.flip(tensor, axis=tuple(axis) if isinstance(axis, list) else axis)


def _squeeze(input: Any, axis: Any = None) -> Any:
    return ops.squeeze(input, axis=tuple(axis) if isinstance(axis, list) else axis)


def _expand_dims(input: Any, axis: int = -1) -> Any:
    return ops.expand_dims(input, axis=axis)


def _tile(input: Any, multiples: Any) -> Any:
    return ops.tile(input, multiples)


def _concat(values: Any, axis: int = -1) -> Any:
    if _is_shape(values):
        return Shape(size for part in values for size in part)
    return ops.concatenate([_constant(value) for value in values], axis=axis)


def _stack(values: Any, axis: int = 0) -> Any:
    if _is_shape([values]):
        return Shape(values)
    return ops.stack([_constant(value) for value in values], axis=axis)


def _is_shape(parts: Any) -> bool:
    """Whether the lists hold nothing but sizes."""
    return all(
        isinstance(part, Shape | list) and all(isinstance(size, Unknown | int) for size in part) for part in parts
    )


def _unstack(value: Any, num: Any = None, axis: int = 0) -> Any:
    return list(value) if isinstance(value, Shape) else ops.unstack(value, num=num, axis=axis)


def _einsum(equation: str, inputs: Any = None) -> Any:
    if inputs is None:
        raise ValueError(
            f"tf_keras keeps no more than the equation {equation!r} of it, not the tensors; use layers.Dot, "
            "layers.EinsumDense or tf.matmul in its place"
        )
    return ops.einsum(equation, *(inputs if isinstance(inputs, list) else [inputs]))


def _tensordot(a: Any, b: Any, axes: Any) -> Any:
    return ops.tensordot(_constant(a), _constant(b), axes=axes)


def _range(start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None) -> np.ndarray:
    start, limit = (0, start) if limit is None else (start, limit)
    if _unknown([start, limit, delta]):
        raise ValueError(_UNKNOWN_SIZE)
    if not delta or abs(limit - start) > _LONGEST * abs(delta):
        raise ValueError(f"expected at most {_LONGEST:,} numbers")
    whole = all(isinstance(value, int) for value in (start, limit, delta))
    numbers: np.ndarray = np.arange(start, limit, delta)
    return numbers.astype(dtype or ("int32" if whole else "float32"))


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


def _one_hot(indices: Any, depth: int, axis: int = -1, dtype: str = "float32") -> Any:
    return ops.one_hot(indices, depth, axis=axis, dtype=dtype)


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
    return UNKNOWN if _unknown([x, y]) else function(_constant(x), _constant(y))


def _constant(value: Any) -> Any:
    return np.asarray(value, np.float32) if isinstance(value, list) else value


def _floor_divide(x: Any, y: Any) -> Any:
    return x // y if isinstance(x, int) and isinstance(y, int) else ops.floor_divide(x, y)


def _shape(input: Any, out_type: Any = None) -> Shape:
    return Shape(UNKNOWN if size is None else size for size in input.shape)


def _bias_add(value: Any, bias: Sequence[float], data_format: str | None = None) -> Any:
    if data_format is not None and not data_format.endswith("C"):
        raise ValueError(f"expected channels last, received data_format {data_format}")
    return ops.add(value, np.asarray(bias, np.float32))


# Last part of TensorFlow's name -> the function.
_TABLE: Mapping[str, Function] = {
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
    **_unary(lambda image: ops.flip(image, axis=-2), "flip_left_right"),
    **_unary(lambda image: ops.flip(image, axis=-3), "flip_up_down"),
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
    "avg_pool": _pool(ops.average_pool),
    "avg_pool2d": _pool(ops.average_pool),
    "bias_add": _bias_add,
    "broadcast_to": lambda input, shape: ops.broadcast_to(input, shape),
    "cast": _cast,
    "clip_by_value": _clip,
    "concat": _concat,
    "cumsum": lambda x, axis=0: ops.cumsum(x, axis=axis),
    "depth_to_space": _depth_to_space,
    "divide_no_nan": _divide_no_nan,
    "einsum": _einsum,
    "elu": lambda x, alpha=1.0: ops.elu(x, alpha=alpha),
    "expand_dims": _expand_dims,
    "gather": _gather,
    "gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
    "getitem": _getitem,
    "l2_normalize": _l2_normalize,
    "leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, negative_slope=alpha),
    "log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, axis=axis),
    "norm": _norm,
    "matmul": _matmul,
    "max_pool": _pool(ops.max_pool),
    "max_pool2d": _pool(ops.max_pool),
    "one_hot": _one_hot,
    "pad": _pad,
    "range": _range,
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
    "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis=axis),
    "reshape": _reshape,
    "resize": _resize,
    "reverse": _reverse,
    "roll": lambda input, shift, axis: ops.roll(input, shift, axis=axis),
    "shape": _shape,
    "silu": _silu,
    "softmax": _softmax,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "swish": _silu,
    "tensordot": _tensordot,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
    "where": _where,
    # keras.backend
    "batch_flatten": lambda x: ops.reshape(x, (-1, math.prod(x.shape[1:]))),
    "clip": lambda x, min_value, max_value: ops.clip(x, min_value, max_value),
    "concatenate": _concat,
    "max": _reduction(ops.max),
    "mean": _reduction(ops.mean),
    "min": _reduction(ops.min),
    "permute_dimensions": lambda x, pattern: ops.transpose(x, pattern),
    "std": _reduction(ops.std),
    "sum": _reduction(ops.sum),
    "var": _reduction(ops.var),
}
