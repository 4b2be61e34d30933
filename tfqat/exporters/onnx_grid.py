"""Grid: the integers that one QuantizeLinear or DequantizeLinear node stands for, as the node says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from tfqat.core.encoding import Encoding
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_DOMAINS = ("", "ai.onnx", "com.microsoft")  # the last one's are the same, with 16 bits before opset 21
# Type -> bits, signed. int32 is that of a bias: scale of the input times scale of the kernel.
_TYPES: Mapping[str, tuple[int, bool]] = {
    "int4": (4, True),
    "uint4": (4, False),
    "int8": (8, True),
    "uint8": (8, False),
    "int16": (16, True),
    "uint16": (16, False),
    "int32": (32, True),
}
# numpy has no type for these.
_STORED = {"int4": "int8", "uint4": "uint8"}
INT4 = frozenset(_STORED)
_DEFAULT_AXIS = 1


class QdqReadError(TfqatError):
    """A Q/DQ ONNX that says something for which there is no place here, or that contradicts itself."""


@dataclass(frozen=True, eq=False)
class Grid:
    """One scale and zero point.

    Attributes:
        dtype: name of the integers' type, such as ``int8``.
        scale: float32, ``()`` or ``(channels,)``.
        zero_point: int32, of the same shape.
        axis: channel axis of the tensor, from 0; None per tensor.
        low, high: the lowest and highest integer in use.
    """

    dtype: str
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None
    low: int
    high: int

    def same(self, other: Grid) -> bool:
        """Whether both hold the same numbers."""
        numbers = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        return numbers and (self.dtype, self.axis, self.low, self.high) == (
            other.dtype,
            other.axis,
            other.low,
            other.high,
        )

    def unlike(self, other: Grid) -> str:
        """Where two grids differ: the first channel that does, or both as a whole."""
        if (self.dtype, self.axis, self.scale.size) != (other.dtype, other.axis, other.scale.size) or self.axis is None:
            return f"{self}, but there {other}"
        differs = (self.scale != other.scale) | (self.zero_point != other.zero_point)
        if not differs.any():
            return f"integers from {self.low} to {self.high}, but there from {other.low} to {other.high}"
        channel = int(differs.argmax())
        told = [f"scale {float(g.scale[channel])!r}, zero point {int(g.zero_point[channel])}" for g in (self, other)]
        return f"{self.dtype}, channel {channel} of {differs.size}: {', but there '.join(told)}"

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """The integers of real values: ``clip(round_half_even(x / scale) + zero_point)``."""
        integers = np.rint(values.astype(np.float32) / self._spread(self.scale, values.ndim)) + self._spread(
            self.zero_point, values.ndim
        )
        return np.clip(integers, self.low, self.high).astype(_STORED.get(self.dtype, self.dtype))

    def dequantize(self, integers: np.ndarray) -> np.ndarray:
        """The real values (float32) of integers."""
        steps = integers.astype(np.int64) - self._spread(self.zero_point, integers.ndim)
        return (steps.astype(np.float32) * self._spread(self.scale, integers.ndim)).astype(np.float32)

    def clipped(self, low: int, high: int) -> Grid:
        """The grid when its integers are clipped."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))

    def moved(self, axis: int | None) -> Grid:
        """The grid of the same values with their channels on another axis."""
        return replace(self, axis=axis)

    def per_tensor(self) -> Grid:
        """The grid without an axis, where it has a single scale; else itself."""
        if self.scale.size != 1:
            return self
        return replace(self, scale=self.scale.reshape(()), zero_point=self.zero_point.reshape(()), axis=None)

    def encoding(self, axis: tuple[int, ...] = (), narrow: bool | None = None) -> Encoding:
        """The Encoding, of origin ``imported``.

        Args:
            axis: channel axes in Keras' layout, for a grid with channels.
            narrow: whether the lowest integer is out of use; None as the grid says.

        Raises:
            QdqReadError: integers that no count of bits describes, or a zero point that is none of them.
        """
        bits, signed = _bits_of(self)
        symmetric = signed and not self.zero_point.any()
        lowest = -(2 ** (bits - 1)) if signed else 0
        scheme = Scheme(bits, signed, symmetric, self.low > lowest if narrow is None else narrow, axis)
        try:
            return Encoding(scheme, self.scale, self.zero_point, "imported")
        except ValueError as error:
            raise QdqReadError(f"Integers from {self.low} to {self.high}, by a Clip: {error}") from error

    def _spread(self, values: np.ndarray, ndim: int) -> np.ndarray:
        if self.axis is None:
            return values
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(ndim)])

    def __str__(self) -> str:
        if self.axis is None:
            return f"{self.dtype}, scale {float(self.scale)!r}, zero point {int(self.zero_point)}"
        return f"{self.dtype}, {self.scale.size} scales on axis {self.axis}"


def is_quantize(node: onnx.NodeProto) -> bool:
    """Whether the node is a QuantizeLinear."""
    return node.op_type == QUANTIZE and node.domain in _DOMAINS


def is_dequantize(node: onnx.NodeProto) -> bool:
    """Whether the node is a DequantizeLinear."""
    return node.op_type == DEQUANTIZE and node.domain in _DOMAINS


def grid_of(
    node: onnx.NodeProto, constants: Mapping[str, np.ndarray], rank: int | None = None, dtype: str | None = None
) -> Grid:
    """The Grid of a QuantizeLinear or DequantizeLinear.

    Args:
        node: the node.
        constants: value of each constant of the model.
        rank: of the tensor, where known, so that an axis from the end can be told.
        dtype: of the integers, where the node has no zero point; uint8, ONNX' default, where None.

    Raises:
        QdqReadError: a scale or zero point that is not constant, not of this tensor or out of range; another type of
            integers or floats.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    scale = _checked_scale(node, constants, bool(attributes.get("block_size")))
    zero_point = _constant(node, 2, "zero point", constants)
    name = _type_name(node, attributes, zero_point, dtype)
    if zero_point is None:
        zero_point = np.zeros(scale.shape, np.int32)
    if zero_point.size != scale.size:
        raise QdqReadError(f"{_told(node)}: {scale.size} scales, but {zero_point.size} zero points.")
    axis = attributes.get("axis", None if scale.size == 1 else _DEFAULT_AXIS) if scale.ndim else None
    if axis is not None and axis < 0 and rank is not None:
        axis += rank
    shape = () if axis is None else (-1,)
    return Grid(name, scale.reshape(shape), zero_point.astype(np.int32).reshape(shape), axis, *bounds_of(name))


def is_integer_type(name: str) -> bool:
    """Whether a dtype of this name is one of the integers that Q/DQ nodes know."""
    return name in _TYPES


def bounds_of(dtype: str) -> tuple[int, int]:
    """The lowest and highest integer of a type, named as ``Grid.dtype`` has it."""
    bits, signed = _TYPES[dtype]
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _checked_scale(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], blocks: bool) -> np.ndarray:
    scale = _constant(node, 1, "scale", constants)
    if scale is None:
        raise QdqReadError(f"{_told(node)} has no scale.")
    if scale.dtype != np.float32:
        raise QdqReadError(f"{_told(node)}: expected a float32 scale, received {scale.dtype}; export in float32.")
    if blocks or scale.ndim > 1:
        raise QdqReadError(f"{_told(node)}: scales for blocks of a tensor have no place in any format here.")
    usable = np.isfinite(scale) & (scale >= np.finfo(np.float32).tiny)
    if not usable.all():
        raise QdqReadError(
            f"{_told(node)}: a scale must be finite, positive and normal in float32, received "
            f"{float(scale[~usable][0])!r}; calibrate that tensor again."
        )
    return scale


def _bits_of(grid: Grid) -> tuple[int, bool]:
    """Bits and signedness of a grid, whose integers may have been clipped."""
    bits, signed = _TYPES[grid.dtype]
    for fewer in range(2, bits + 1):
        lowest, highest = (-(2 ** (fewer - 1)), 2 ** (fewer - 1) - 1) if signed else (0, 2**fewer - 1)
        if grid.high == highest and grid.low in (lowest, lowest + 1):
            return fewer, signed
    raise QdqReadError(f"Integers from {grid.low} to {grid.high} are those of no count of bits.")


def _constant(node: onnx.NodeProto, index: int, what: str, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    name = node.input[index] if len(node.input) > index else ""
    if name and name not in constants:
        raise QdqReadError(
            f"{_told(node)}: its {what} {name!r} is not constant but computed from the model's input (dynamic "
            f"quantization); export with static ranges."
        )
    return constants[name] if name else None


def _type_name(
    node: onnx.NodeProto, attributes: Mapping[str, object], zero_point: np.ndarray | None, dtype: str | None
) -> str:
    asked = attributes.get("output_dtype")
    if zero_point is not None:
        name = zero_point.dtype.name
    elif isinstance(asked, int) and asked:
        name = np.dtype(helper.tensor_dtype_to_np_dtype(asked)).name
    else:
        name = dtype or "uint8"
    if name not in _TYPES:
        raise QdqReadError(
            f"{_told(node)}: expected integers of 4, 8 or 16 bits, received {name}; no format here holds such a tensor."
        )
    return name


def _told(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name!r} (at tensor {node.input[0]!r})"
