"""Scheme: how one tensor becomes integers (bits, signed, symmetric, narrow, axis).

Real and integer values are tied by ``x ~ scale * (q - zero_point)`` with
``q = clip(round_half_even(x / scale) + zero_point, qmin, qmax)``
(TensorRT developer guide, "Explicit quantization"; ONNX QuantizeLinear).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# A scale below this is that of a dead tensor. 2**-64 is a normal float32, and so are its products with any int8.
SCALE_FLOOR = np.float32(2.0**-64)


@dataclass(frozen=True)
class Scheme:
    """How one tensor becomes integers.

    ``axis`` names the channel axes of a per-channel scheme, counted from the end (a depthwise kernel has two,
    which are merged); ``()`` is one scale for the whole tensor. ``narrow`` leaves out the lowest integer, so that
    symmetric weights use [-127, 127].
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    narrow: bool = False
    axis: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"Scheme.bits must be from 2 to 16, received {self.bits}.")
        if any(axis >= 0 for axis in self.axis):
            raise ValueError(f"Scheme.axis counts from the end, so each must be negative, received {self.axis}.")

    @property
    def qmin(self) -> int:
        """The lowest integer in use."""
        lowest = -(2 ** (self.bits - 1)) if self.signed else 0
        return lowest + int(self.narrow)

    @property
    def qmax(self) -> int:
        """The highest integer in use."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a scale of its own."""
        return bool(self.axis)


def to_channels(values: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """``values`` as a matrix (elements, channels): the channel axes merged and moved last."""
    if not axis:
        return values.reshape(-1, 1)
    positions = [values.ndim + a for a in axis]
    channels = int(np.prod([values.shape[p] for p in positions]))
    return np.moveaxis(values, positions, range(-len(positions), 0)).reshape(-1, channels)


def broadcast(per_channel: np.ndarray, ndim: int, shape: tuple[int, ...], axis: tuple[int, ...]) -> np.ndarray:
    """One value a channel, shaped so that it multiplies a tensor of ``shape``."""
    if not axis:
        return np.asarray(per_channel).reshape([1] * ndim)
    positions = [ndim + a for a in axis]
    return np.asarray(per_channel).reshape([shape[p] if p in positions else 1 for p in range(ndim)])


def scale_and_zero_point(scheme: Scheme, low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale (float32) and zero point (int32) for the real range ``[low, high]``, a number or one a channel.

    Symmetric: ``scale = max(-low, high) / qmax``, zero point 0. Asymmetric: the range is widened to hold 0 and
    ``zero_point = round(qmin - low / scale)``. A scale below SCALE_FLOOR (a dead tensor) is raised to it.

    Raises:
        ValueError: a bound is not finite, or low is above high.
    """
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any():
        raise ValueError(f"A range must be finite with low <= high, received low={low}, high={high}.")
    if scheme.symmetric:
        scale = np.maximum(np.maximum(-low, high) / np.float32(scheme.qmax), SCALE_FLOOR)
        return scale.astype(np.float32), np.zeros(scale.shape, np.int32)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = np.maximum((high - low) / np.float32(scheme.qmax - scheme.qmin), SCALE_FLOOR).astype(np.float32)
    zero_point = np.clip(np.rint(scheme.qmin - low / scale), scheme.qmin, scheme.qmax)
    return scale, zero_point.astype(np.int32)


def quantize(values: np.ndarray, scheme: Scheme, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """The integers (int32) of ``values``, rounded half to even."""
    shape = values.shape
    scale = broadcast(scale, values.ndim, shape, scheme.axis).astype(np.float32)
    zero_point = broadcast(zero_point, values.ndim, shape, scheme.axis)
    integers = np.rint(np.asarray(values, np.float32) / scale) + zero_point
    return np.clip(integers, scheme.qmin, scheme.qmax).astype(np.int32)


def dequantize(integers: np.ndarray, scheme: Scheme, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """The real values (float32) of ``integers``."""
    shape = integers.shape
    scale = broadcast(scale, integers.ndim, shape, scheme.axis).astype(np.float32)
    zero_point = broadcast(zero_point, integers.ndim, shape, scheme.axis)
    return ((integers - zero_point).astype(np.float32) * scale).astype(np.float32)
