"""Learned: fake quantization whose range gets a gradient as well (LSQ, arXiv:1902.08153, sections 2.1 and 2.2).

Of ``q(x) = s * (clip(round(x / s) + z, qmin, qmax) - z)`` the gradient, with rounding passed straight through, is

    dq/dx = 1 inside the range and 0 outside
    dq/ds = round(x / s) - x / s inside, qmin or qmax outside                     (symmetric: z = 0, s = extent / qmax)

An asymmetric range is learned by its two ends (LSQ+, arXiv:2004.09576, section 3.1, learns s and an offset b: the same
two numbers). With s = (high - low) / steps and z = round(qmin - low / s), so that zero stays on the grid exactly; what
that moves the ends is passed straight through as well:

    dq/dhigh =  (round(x / s) - x / s) / steps inside, 1 above, 0 below
    dq/dlow  = -(round(x / s) - x / s) / steps inside, 0 above, 1 below

All are divided by sqrt(n * qmax), n being the elements that share the range (asymmetric: qmax - qmin for qmax). What an
optimizer moves is not s but the extent, s * qmax: a number of the size of weights, as optimizers expect it, where a
step of Adam would be many times s. A step of SGD moves s by 1 / qmax^2 of the paper's; ``rate`` = qmax^2 gives the
paper's own.

TensorFlow's fused kernels give dx, and the sums of dy below and above the range, dy being what
comes from above; and the sum of ``dy * (round(x / s) - x / s)`` inside is that of ``dx * (q(x) - x) / s``.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfqat.core.scheme import Scheme
from tfqat.rewrite.fake_quant import FLOOR, bounds, fake_quantize_held, kernel_scale, scale_and_zero_point

# No range reaches further: its square is a float32 still.
LARGEST = 2.0**60
# So far below an integer, in steps, a value is still rounded to it, also where float32 computes the quotient.
ROUNDS_UP = 0.499


def learned_extent(variable: Any, lowest: Any, highest: Any, rate: float = 1.0) -> Any:
    """The extent that a trained variable stands for: ``rate * variable``, brought between two bounds.

    Its gradient goes to the variable as it is, so that the extent moves ``rate`` times as far as an optimizer's step:
    that of SGD, in which the gradient counts, as well as Adam's, in which only its sign and its course do.
    At a bound the gradient stops where it would lead outwards and passes where it leads back. One that is not finite
    (a batch that overflows) is left out, as a moving average leaves such a batch out.
    """

    @ops.custom_gradient
    def within(values: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            upstream = arguments[0] if upstream is None else upstream
            # A step goes against the gradient.
            leads_out = ops.where(upstream > 0.0, values <= lowest, values >= highest)
            passes = ops.logical_and(ops.isfinite(upstream), ops.logical_not(leads_out))
            return ops.where(passes, upstream / rate, 0.0)

        return ops.clip(values, lowest, highest), gradient

    return within(ops.multiply(variable, rate))


def coarsest_scale(kernel: Any, scheme: Scheme) -> Any:
    """The largest scale (shaped to multiply the kernel) by which the largest weight still becomes the largest integer.

    A coarser grid would leave integers unused. And TensorRT, which takes ``max|w| / 127`` of what a float file holds,
    finds the trained scale of a kernel that has the integer 127.
    """
    return kernel_scale(kernel, scheme) * (scheme.qmax / (scheme.qmax - ROUNDS_UP))


def fake_quantize_learned(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """``fake_quantize`` whose extent gets a gradient, too."""
    if keras.backend.backend() == "tensorflow":
        return _fused(inputs, extent, scheme)
    return _plain(inputs, extent, scheme)


def fake_quantize_relu6_learned(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """``fake_quantize_learned(relu6(inputs))``, on TensorFlow in one kernel; symmetric, for an extent of at most 6."""
    if keras.backend.backend() == "tensorflow":
        return _fused(inputs, extent, scheme, after_relu6=True)
    return _plain(ops.relu6(inputs), extent, scheme)


def _plain(inputs: Any, extent: Any, scheme: Scheme) -> Any:
    """By the formula, on any backend: what is differentiated is the surrogate, in which rounding only adds a number."""
    extent = _damped(extent, ops.cast(ops.size(inputs), "float32") * _levels(scheme))
    if scheme.symmetric:
        return fake_quantize_held(inputs, ops.maximum(extent[0] / float(scheme.qmax), FLOOR), scheme)
    scale, zero_point = (ops.stop_gradient(value) for value in scale_and_zero_point(extent, scheme))
    low, high = bounds(extent, scheme)
    lowest = _set_through(low, (scheme.qmin - zero_point) * scale)
    highest = _set_through(high, (scheme.qmax - zero_point) * scale)
    clipped = ops.minimum(ops.maximum(inputs, lowest), highest)
    added = ops.stop_gradient(ops.round(clipped / scale) - clipped / scale)
    return clipped + added * (high - low) / float(scheme.qmax - scheme.qmin)


def _set_through(values: Any, becomes: Any) -> Any:
    return values + ops.stop_gradient(becomes - values)


def _levels(scheme: Scheme) -> float:
    """What ``n`` is multiplied by: qmax, or of an asymmetric scheme the steps of its grid."""
    return float(scheme.qmax if scheme.symmetric else scheme.qmax - scheme.qmin)


def _damped(values: Any, factor: Any) -> Any:
    """The values, with their gradient divided by the root of ``factor``."""
    damping = ops.rsqrt(factor)
    return values * damping + ops.stop_gradient(values * (1.0 - damping))


def _fused(inputs: Any, extent: Any, scheme: Scheme, after_relu6: bool = False) -> Any:
    """By TensorFlow's kernels, which round half up; ``after_relu6`` leaves them the integers from 0 up."""
    import tensorflow as tf

    low, high = bounds(ops.stop_gradient(extent), scheme)
    lowest, bits = (0, scheme.bits - 1) if after_relu6 else (scheme.qmin, scheme.bits)
    low = ops.zeros(()) if after_relu6 else low
    grid = {"min": low, "max": high, "num_bits": bits, "narrow_range": scheme.narrow and not after_relu6}

    @tf.custom_gradient
    def rounded(values: Any, extent: Any) -> Any:
        output = tf.raw_ops.FakeQuantWithMinMaxVars(inputs=values, **grid)

        def gradient(upstream: Any) -> Any:
            dx, below, above = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(gradients=upstream, inputs=values, **grid)
            residual = _dot(dx, output - values) / (high - low)  # of dx * (round(x / s) - x / s), in shares of the grid
            if scheme.symmetric:
                by_extent = residual * (1 - lowest / scheme.qmax) + above + below * (lowest / scheme.qmax)
            else:
                by_extent = tf.stack([residual - below, residual + above])
            size = tf.cast(tf.size(values), tf.float32)
            return dx, tf.reshape(by_extent, extent.shape) * tf.math.rsqrt(size * _levels(scheme))

        return output, gradient

    return rounded(inputs, extent)


def _dot(first: Any, second: Any) -> Any:
    """``sum(first * second)``, products not written down (measured: 0.6 of the time, and 0.13 of ``tensordot``'s)."""
    import tensorflow as tf

    return tf.matmul(tf.reshape(first, (1, -1)), tf.reshape(second, (1, -1)), transpose_b=True)[0, 0]


def fake_quantize_kernel_learned(kernel: Any, scale: Any, scheme: Scheme) -> Any:
    """``fake_quantize_held`` whose scale (shaped to multiply the kernel) gets LSQ's gradient; any Keras backend."""
    lowest, highest = float(scheme.qmin), float(scheme.qmax)
    others = tuple(axis for axis, size in enumerate(scale.shape) if size == 1)
    damping = 1.0 / math.sqrt(math.prod(kernel.shape) / math.prod(scale.shape) * highest)

    @ops.custom_gradient
    def rounded(values: Any, scale: Any) -> Any:
        ratio = values / scale
        clipped = ops.clip(ratio, lowest, highest)
        integers = ops.round(clipped)

        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            upstream = arguments[0] if upstream is None else upstream
            dx = ops.where(clipped == ratio, upstream, 0.0)
            by_scale = ops.sum(upstream * integers - dx * ratio, axis=others, keepdims=True)
            return dx, by_scale * damping

        return integers * scale, gradient

    return rounded(kernel, ops.maximum(scale, FLOOR))
