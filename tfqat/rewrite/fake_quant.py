"""Fake quantization: a tensor rounded to its integers and back, with a straight-through gradient; any Keras backend.

Kernels:      q(x) = s * round(x / s),  s = max|x| / qmax per channel,  dq/dx = 1 (nothing is clipped);
              asymmetric: s = (max x - min x) / (qmax - qmin), with a zero point;
              held scale: q(x) = s * clip(round(x / s), qmin, qmax),  dq/dx = 0 where it clips
Activations:  q(x) = s * clip(round(x / s), qmin, qmax),  dq/dx = 1 inside the range and 0 outside
              (arXiv:1308.3432 for the straight-through estimator, arXiv:1712.05877 for its use here)
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfqat.core.scheme import SCALE_FLOOR, Scheme

FLOOR = float(SCALE_FLOOR)


def kernel_scale(kernel: Any, scheme: Scheme) -> Any:
    """``max|kernel| / qmax`` per channel, shaped to multiply the kernel; symmetric schemes only."""
    rank = len(kernel.shape)
    channels = {rank + axis for axis in scheme.axis}
    others = tuple(axis for axis in range(rank) if axis not in channels)
    largest = ops.max(ops.abs(kernel), axis=others, keepdims=True)
    return ops.maximum(largest / float(scheme.qmax), FLOOR)


def fake_quantize_kernel(kernel: Any, scheme: Scheme) -> Any:
    """The kernel on its integer grid, rounded half to even; the gradient passes unchanged, since nothing is clipped."""

    @ops.custom_gradient
    def rounded(values: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            return arguments[0] if upstream is None else upstream

        if not scheme.symmetric:
            scale, zero_point = _asymmetric_kernel(values, scheme)
            integers = ops.clip(ops.round(values / scale) + zero_point, float(scheme.qmin), float(scheme.qmax))
            return (integers - zero_point) * scale, gradient
        scale = kernel_scale(values, scheme)
        return ops.round(values / scale) * scale, gradient

    return rounded(kernel)


def fake_quantize_held(values: Any, scale: Any, scheme: Scheme) -> Any:
    """The values on the grid of a given scale (shaped to multiply them); clipped ones get no gradient."""
    clipped = ops.clip(values / scale, float(scheme.qmin), float(scheme.qmax))
    return (clipped + ops.stop_gradient(ops.round(clipped) - clipped)) * scale


def _asymmetric_kernel(kernel: Any, scheme: Scheme) -> tuple[Any, Any]:
    rank = len(kernel.shape)
    others = tuple(axis for axis in range(rank) if axis - rank not in scheme.axis)
    low = ops.minimum(ops.min(kernel, axis=others, keepdims=True), 0.0)
    high = ops.maximum(ops.max(kernel, axis=others, keepdims=True), 0.0)
    scale = ops.maximum((high - low) / float(scheme.qmax - scheme.qmin), FLOOR)
    zero_point = ops.clip(ops.round(scheme.qmin - low / scale), float(scheme.qmin), float(scheme.qmax))
    return scale, zero_point


def bounds(extent: Any, scheme: Scheme) -> tuple[Any, Any]:
    """The lowest and highest real value of a tensor (two scalars) whose extent is known.

    ``extent`` holds ``[max|x|]`` for a symmetric scheme, ``[max(-x), max(x)]`` for an asymmetric one.
    """
    if scheme.symmetric:
        scale = ops.maximum(extent[0] / float(scheme.qmax), FLOOR)
        return scale * float(scheme.qmin), scale * float(scheme.qmax)
    low, high = -ops.maximum(extent[0], 0.0), ops.maximum(extent[1], 0.0)
    return low, ops.maximum(high, low + FLOOR * (scheme.qmax - scheme.qmin))


def round_exactly(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """The tensor on the integer grid of its extent, rounded half to even, as every runtime of the exported files does.

    ``scale * (clip(round(x / scale) + zero_point, qmin, qmax) - zero_point)``; no gradient.
    """
    scale, zero_point = scale_and_zero_point(extent, scheme)
    integers = ops.round(inputs / scale) + zero_point
    return (ops.clip(integers, float(scheme.qmin), float(scheme.qmax)) - zero_point) * scale


def round_relu6_exactly(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """``round_exactly(relu6(inputs))``."""
    return round_exactly(ops.relu6(inputs), extent, scheme)


def scale_and_zero_point(extent: Any, scheme: Scheme) -> tuple[Any, Any]:
    """As core.scheme.scale_and_zero_point has them, on a Keras backend."""
    if scheme.symmetric:
        return ops.maximum(extent[0] / float(scheme.qmax), FLOOR), 0.0
    low, high = bounds(extent, scheme)
    scale = ops.maximum((high - low) / float(scheme.qmax - scheme.qmin), FLOOR)
    zero_point = ops.clip(ops.round(scheme.qmin - low / scale), float(scheme.qmin), float(scheme.qmax))
    return scale, zero_point


def fake_quantize(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """The tensor on the integer grid of its extent; values outside are clipped and get no gradient.

    On the TensorFlow backend this is the fused kernel, which rounds half up where ``round_exactly`` rounds half to
    even: the two differ by one step at exact ties only, and the kernel is what makes training fast.
    """
    low, high = bounds(extent, scheme)
    return keras.quantizers.fake_quant_with_min_max_vars(
        inputs, low, high, num_bits=scheme.bits, narrow_range=scheme.narrow
    )


def fake_quantize_relu6(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """``fake_quantize(relu6(inputs))`` in one kernel, for a symmetric signed scheme and an extent of at most 6."""
    high = ops.maximum(extent[0], FLOOR * scheme.qmax)
    return keras.quantizers.fake_quant_with_min_max_vars(inputs, 0.0, high, num_bits=scheme.bits - 1)


def extent_of(inputs: Any, scheme: Scheme, nonnegative: bool) -> Any:
    """The extent of the values at hand; ``nonnegative`` saves looking for negative ones."""
    if scheme.symmetric:
        # Two reductions, rather than one of abs(inputs), which would have to be written down first.
        largest = ops.max(inputs) if nonnegative else ops.maximum(ops.max(inputs), -ops.min(inputs))
        return ops.reshape(largest, (1,))
    lowest = ops.zeros(()) if nonnegative else -ops.min(inputs)
    return ops.stack([lowest, ops.max(inputs)])
