"""Encoding: what was learnt for one tensor (scale, zero point, bits, axis); Encodings: all of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfqat.core.scheme import SCALE_FLOOR, Scheme, dequantize, quantize, scale_and_zero_point, to_channels

# Not far from what activations have: biases at its product with a kernel's scale fit int32.
DEAD_SCALE = np.float32(2.0**-7)
ORIGINS = ("learned", "shared", "calibrated", "imported")


@dataclass(frozen=True, eq=False)
class Encoding:
    """The learnt range of one tensor.

    ``scale`` is float32 and ``zero_point`` int32, both of shape ``()`` per tensor and ``(channels,)`` per channel.
    ``origin`` says where the range comes from: ``learned`` (a Quantizer or a kernel), ``shared`` (carried over from
    another tensor), ``calibrated`` (observed or computed, never trained against), ``imported`` (read from a file).
    """

    scheme: Scheme
    scale: Any
    zero_point: Any
    origin: str = "learned"

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"Encoding.origin must be one of {ORIGINS}, received {self.origin!r}.")
        object.__setattr__(self, "scale", np.asarray(self.scale, np.float32))
        object.__setattr__(self, "zero_point", np.asarray(self.zero_point, np.int32))
        _check(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        same_numbers = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        return same_numbers and self.scheme == other.scheme and self.origin == other.origin

    @property
    def min(self) -> np.ndarray:
        """The lowest real value, ``scale * (qmin - zero_point)``."""
        return self.scale * (self.scheme.qmin - self.zero_point).astype(np.float32)

    @property
    def max(self) -> np.ndarray:
        """The highest real value, ``scale * (qmax - zero_point)``."""
        return self.scale * (self.scheme.qmax - self.zero_point).astype(np.float32)

    @property
    def dead(self) -> bool:
        """Whether the tensor (each of its channels) was zero wherever it was looked at, so its scale is the floor."""
        return bool((self.scale <= SCALE_FLOOR).all())

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """The integers (int32) of ``values``."""
        return quantize(values, self.scheme, self.scale, self.zero_point)

    def fake_quantize(self, values: np.ndarray) -> np.ndarray:
        """``values`` after quantizing and back, float32."""
        return dequantize(self.quantize(values), self.scheme, self.scale, self.zero_point)


def encoding_of_range(scheme: Scheme, low: float, high: float, origin: str = "learned") -> Encoding:
    """The Encoding of the real range ``[low, high]``."""
    return Encoding(scheme, *scale_and_zero_point(scheme, np.float32(low), np.float32(high)), origin)


def encoding_of_values(scheme: Scheme, values: np.ndarray, origin: str = "learned") -> Encoding:
    """The Encoding that just holds ``values``: per channel where the scheme has axes."""
    matrix = to_channels(np.asarray(values, np.float32), scheme.axis)
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    if not scheme.per_channel:
        low, high = low[0], high[0]
    return Encoding(scheme, *scale_and_zero_point(scheme, low, high), origin)


def encoding_of_least_error(scheme: Scheme, values: np.ndarray, origin: str = "learned") -> Encoding:
    """The Encoding with the least squared error, of the one that just holds ``values`` and shares of its scales.

    Each channel has its own share; symmetric schemes only. Of 7 bits and more nothing is worth being cut off.
    """
    widest = encoding_of_values(scheme, values, origin)
    if scheme.bits >= 7:
        return widest
    matrix = to_channels(np.asarray(values, np.float32), scheme.axis)
    best = np.broadcast_to(widest.scale, matrix.shape[1:]).copy()
    least = np.full(matrix.shape[1], np.inf, np.float32)
    for share in np.linspace(1.0, 0.2, 41, dtype=np.float32):
        scale = np.maximum(widest.scale * share, SCALE_FLOOR)
        integers = np.clip(np.rint(matrix / scale), scheme.qmin, scheme.qmax)
        error = np.square(integers * scale - matrix).sum(axis=0)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return replace(widest, scale=best if scheme.per_channel else best[0])


def encoding_of_slopes(slopes: np.ndarray, origin: str = "learned") -> Encoding:
    """The Encoding that just holds the slopes of a PReLU: symmetric, one scale for all.

    Of slopes that are on its grid already it gives the same integers again. Source: TensorFlow Lite's int8 PRELU.
    """
    return encoding_of_values(Scheme(narrow=True), slopes, origin)


def usable(encoding: Encoding) -> Encoding:
    """The Encoding as integers are made with it: of a dead tensor, whose zeros any scale holds, one in common use.

    No int32 bias has the scale of a dead tensor, and no kernel's multiplier reaches it.
    """
    if not encoding.dead:
        return encoding
    return replace(encoding, scale=np.full_like(encoding.scale, DEAD_SCALE), zero_point=encoding.zero_point * 0)


@dataclass(frozen=True)
class Encodings:
    """All that was learnt for one model, keyed by names of its float ONNX.

    Attributes:
        target: name of the target it was trained for.
        activations: tensor name -> Encoding, in the order in which the tensors are computed.
        weights: op name -> Encoding of its kernel.
        float_ops: op name -> why a weighted op (and what is fused to it) stays float.
        metadata: what a file that this was read from says besides, by subject, as plain JSON values; kept so that
            the same file can be written again.
    """

    target: str
    activations: Mapping[str, Encoding]
    weights: Mapping[str, Encoding]
    float_ops: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def _check(encoding: Encoding) -> None:
    scale, zero_point = encoding.scale, encoding.zero_point
    if scale.shape != zero_point.shape or scale.ndim != int(encoding.scheme.per_channel):
        raise ValueError(
            f"Scale and zero point must both have {'one axis' if encoding.scheme.per_channel else 'no axis'} for "
            f"{encoding.scheme}, received shapes {scale.shape} and {zero_point.shape}."
        )
    if not np.isfinite(scale).all() or (scale < np.finfo(np.float32).tiny).any():
        raise ValueError(f"A scale must be finite, positive and normal in float32, received {scale}.")
    scheme = encoding.scheme
    lowest = scheme.qmin - int(scheme.narrow)
    if (zero_point < lowest).any() or (zero_point > scheme.qmax).any():
        raise ValueError(f"A zero point of {scheme} must be from {lowest} to {scheme.qmax}, received {zero_point}.")
