"""TF layouts: TensorFlow's functions that move numbers about or make rows of them, as ``keras.ops``.

One Python function for each, with TensorFlow's argument names. Sources: the signatures in its API reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from tfqat.models.keras2.tf_numbers import constant
from tfqat.models.keras2.wiring import UNKNOWN, UNKNOWN_SIZE, Shape, Unknown, any_unknown

Function = Callable[..., Any]
# As many numbers in a row as positions of a sequence or an image have at most.
_LONGEST = 2**24


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


def _gather(params: Any, indices: Any, axis: Any = None) -> Any:
    return ops.take(params, indices, axis=axis or 0)


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
    return ops.concatenate([constant(value) for value in values], axis=axis)


def _stack(values: Any, axis: int = 0) -> Any:
    if _is_shape([values]):
        return Shape(values)
    return ops.stack([constant(value) for value in values], axis=axis)


def _is_shape(parts: Any) -> bool:
    """Whether the lists hold nothing but sizes."""
    return all(
        isinstance(part, Shape | list) and all(isinstance(size, Unknown | int) for size in part) for part in parts
    )


def _unstack(value: Any, num: Any = None, axis: int = 0) -> Any:
    return list(value) if isinstance(value, Shape) else ops.unstack(value, num=num, axis=axis)


def _range(start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None) -> np.ndarray:
    start, limit = (0, start) if limit is None else (start, limit)
    if any_unknown([start, limit, delta]):
        raise ValueError(UNKNOWN_SIZE)
    if not delta or abs(limit - start) > _LONGEST * abs(delta):
        raise ValueError(f"expected at most {_LONGEST:,} numbers")
    whole = all(isinstance(value, int) for value in (start, limit, delta))
    numbers: np.ndarray = np.arange(start, limit, delta)
    return numbers.astype(dtype or ("int32" if whole else "float32"))


def _one_hot(indices: Any, depth: int, axis: int = -1, dtype: str = "float32") -> Any:
    return ops.one_hot(indices, depth, axis=axis, dtype=dtype)


def _shape(input: Any, out_type: Any = None) -> Shape:
    return Shape(UNKNOWN if size is None else size for size in input.shape)


# Last part of TensorFlow's name -> the function.
LAYOUTS: Mapping[str, Function] = {
    "broadcast_to": lambda input, shape: ops.broadcast_to(input, shape),
    "concat": _concat,
    "expand_dims": _expand_dims,
    "gather": _gather,
    "getitem": _getitem,
    "one_hot": _one_hot,
    "pad": _pad,
    "range": _range,
    "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis=axis),
    "reshape": _reshape,
    "reverse": _reverse,
    "roll": lambda input, shift, axis: ops.roll(input, shift, axis=axis),
    "shape": _shape,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
    "batch_flatten": lambda x: ops.reshape(x, (-1, math.prod(x.shape[1:]))),
    "concatenate": _concat,
    "permute_dimensions": lambda x, pattern: ops.transpose(x, pattern),
}
