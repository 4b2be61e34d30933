"""Quantized layers: the stock Keras layer with a mixin in front that quantizes its kernel during the call.

``class QuantConv2D(QuantizedKernel, keras.layers.Conv2D)``: the op itself is never rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tfqat.core.encoding import Encoding, encoding_of_values
from tfqat.core.scheme import SCALE_FLOOR, Scheme, broadcast, to_channels
from tfqat.rewrite.fake_quant import FLOOR, fake_quantize_held, fake_quantize_kernel, kernel_scale
from tfqat.rewrite.jit import jit_pays
from tfqat.rewrite.learned import LARGEST, coarsest_scale, fake_quantize_kernel_learned, learned_extent

if TYPE_CHECKING:
    from keras.layers import Layer as _Layer
else:
    # Only to a type checker is the mixin the layer that it stands in front of.
    _Layer = object


# Where a kernel's scale comes from: the largest weight, from outside, or by gradient.
SCALES = ("max", "held", "learned")


class QuantizedKernel(_Layer):
    """Mixin: ``kernel`` is ``s * round(kernel / s)``, ``s = max|kernel| / qmax`` per channel, while ``call`` runs.

    Outside of ``call``, ``kernel`` is the float variable, so saving and optimizing never see rounded weights. A
    finalized layer (``finalized=True``) holds ``s * q`` as its kernel and ``s`` as ``kernel_scale``, shape
    ``(channels,)`` or ``()``, and rounds no more; an asymmetric one has a ``kernel_zero_point`` as well. With
    ``scale_by="held"`` the scale is ``kernel_scale`` from the start, set from outside, and weights beyond it are
    clipped; with ``scale_by="learned"`` it is trained as well, by LSQ's gradient, until it is frozen, and moves
    ``rate_multiplier`` times as far as by the optimizer's own learning rate. Learned or frozen, it is never so coarse
    that a channel leaves its largest integer unused.
    """

    def __init__(
        self,
        *args: Any,
        weight_scheme: Scheme | dict[str, Any],
        finalized: bool = False,
        scale_by: str = "max",
        rate_multiplier: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        given = weight_scheme
        self.weight_scheme = given if isinstance(given, Scheme) else Scheme(**{**given, "axis": tuple(given["axis"])})
        self.finalized, self.scale_by, self.rate_multiplier = finalized, scale_by, rate_multiplier
        self.supports_jit = jit_pays()
        self._quantizing = False
        self._clock = _Clock(None)

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        if self._learns:
            # As far as the largest integer reaches, a number of the size of weights, as optimizers expect it; divided
            # by rate_multiplier.
            self.kernel_extent = self._state("kernel_extent", "ones", trainable=True)
            # Apart from it, since an optimizer that knows it may go on moving it by momentum.
            self.frozen_scale = self._state("frozen_scale", "zeros")
        elif self.finalized or self.scale_by == "held":
            self.kernel_scale = self._state("kernel_scale", "ones")
            if not self.weight_scheme.symmetric:
                self.kernel_zero_point = self._state("kernel_zero_point", "zeros")

    @property
    def _learns(self) -> bool:
        return self.scale_by == "learned" and not self.finalized

    def _state(self, name: str, initializer: str, trainable: bool = False) -> Any:
        scheme = self.weight_scheme
        channels = to_channels(np.empty(self._kernel.shape, np.bool_), scheme.axis).shape[1]
        shape = (channels,) if scheme.per_channel else ()
        kept = {"dtype": "float32", "autocast": False, "aggregation": "mean"}
        return self.add_weight(name=name, shape=shape, initializer=initializer, trainable=trainable, **kept)

    @property
    def kernel(self) -> Any:
        """The float kernel; during ``call`` the quantized one."""
        if not self._quantizing or self.finalized:
            return self._kernel
        kernel = ops.cast(self._kernel, "float32")
        return ops.cast(self._rounded(kernel), self.compute_dtype)

    @kernel.setter
    def kernel(self, value: Any) -> None:
        self._kernel = value

    def _rounded(self, kernel: Any) -> Any:
        if self.scale_by == "max":
            return fake_quantize_kernel(kernel, self.weight_scheme)
        rounded = fake_quantize_kernel_learned if self._learns else fake_quantize_held
        return rounded(kernel, self.scale_for(kernel), self.weight_scheme)

    def scale_for(self, kernel: Any) -> Any:
        """The scale (shaped to multiply it) by which the layer would round a kernel; symmetric schemes only."""
        if self.scale_by == "max":
            return kernel_scale(kernel, self.weight_scheme)
        scale, shape = self._scale_in_use(kernel), tuple(kernel.shape)
        ones = broadcast(np.ones(scale.shape), len(shape), shape, self.weight_scheme.axis).shape
        return ops.reshape(scale, ones)

    def _scale_in_use(self, kernel: Any = None) -> Any:
        """The held or learned scale, one a channel; of the layer's own kernel where none is given."""
        if not self._learns:
            return ops.convert_to_tensor(self.kernel_scale)
        kernel = ops.cast(self._kernel, "float32") if kernel is None else kernel
        frozen = ops.convert_to_tensor(self.frozen_scale)
        qmax = float(self.weight_scheme.qmax)
        coarsest = coarsest_scale(ops.stop_gradient(kernel), self.weight_scheme)
        coarsest = ops.minimum(ops.reshape(coarsest, self.kernel_extent.shape), LARGEST)
        extent = learned_extent(self.kernel_extent, FLOOR * qmax, coarsest * qmax, self.rate_multiplier)
        return ops.where(frozen > 0.0, ops.minimum(frozen, coarsest), extent / qmax)

    def call(self, inputs: Any) -> Any:
        self._freeze_when_due()
        self._quantizing = True
        try:
            return super().call(inputs)
        finally:
            self._quantizing = False

    def tie(self, estimator: Any) -> None:
        """Freezes a learned scale with the range of ``estimator``, which counts training steps (``freeze_after``)."""
        self._clock = _Clock(estimator)

    def _freeze_when_due(self) -> None:
        if self._clock.estimator is None or not self._learns:
            return
        frozen, stopped = ops.convert_to_tensor(self.frozen_scale), ops.convert_to_tensor(self._clock.estimator.frozen)
        due = ops.logical_and(stopped > 0.5, frozen <= 0.0)
        self.frozen_scale.assign(ops.where(due, ops.maximum(self._scale_in_use(), FLOOR), frozen))

    def hold_scale(self, scale: np.ndarray) -> None:
        """Sets a scale that is held, or learned from here on: one a channel, or one for the whole kernel."""
        if self._learns:
            extent = learned_variable(scale, self.weight_scheme, self.rate_multiplier)
            self.kernel_extent.assign(np.broadcast_to(extent, self.kernel_extent.shape))
        else:
            self.kernel_scale.assign(np.broadcast_to(np.asarray(scale, np.float32), self.kernel_scale.shape))

    def freeze_scale(self) -> None:
        """Stops a learned scale where it is, in any loop, also one that was compiled before."""
        if self._learns:
            before, now = (ops.convert_to_numpy(scale) for scale in (self.frozen_scale, self._scale_in_use()))
            self.frozen_scale.assign(np.where(before > 0, before, np.maximum(now, SCALE_FLOOR)))

    def kernel_encoding(self) -> Encoding:
        """The Encoding of the kernel as it stands; of a held scale its origin is ``imported``."""
        if self.scale_by == "max" and not self.finalized:
            return encoding_of_values(self.weight_scheme, ops.convert_to_numpy(self._kernel))
        scale = np.maximum(ops.convert_to_numpy(self._scale_in_use()), SCALE_FLOOR)
        zero_point = np.zeros(scale.shape, np.int32)
        if not self.weight_scheme.symmetric:
            zero_point = np.rint(ops.convert_to_numpy(self.kernel_zero_point)).astype(np.int32)
        return Encoding(self.weight_scheme, scale, zero_point, "imported" if self.scale_by == "held" else "learned")

    def save_own_variables(self, store: Any) -> None:
        """As any layer saves: Conv2D's own way knows kernel and bias alone, and would lose the scale."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """The counterpart of ``save_own_variables``."""
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        scheme = {**asdict(self.weight_scheme), "axis": list(self.weight_scheme.axis)}
        own = {"weight_scheme": scheme, "finalized": self.finalized, "scale_by": self.scale_by}
        return {**super().get_config(), **own, "rate_multiplier": self.rate_multiplier}


class _Clock:
    """The range layer that counts training steps; a class of its own, so that Keras does not track it."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator


def learned_variable(scale: Any, scheme: Scheme, rate_multiplier: float) -> np.ndarray:
    """The ``kernel_extent`` that stands for a scale."""
    return np.asarray(scale, np.float32) * np.float32(scheme.qmax) / np.float32(rate_multiplier)


@keras.saving.register_keras_serializable("tfqat")
class QuantConv1D(QuantizedKernel, keras.layers.Conv1D):
    """keras.layers.Conv1D with a quantized kernel (steps, in, out), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantConv2D(QuantizedKernel, keras.layers.Conv2D):
    """keras.layers.Conv2D with a quantized kernel (h, w, in, out), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantConv3D(QuantizedKernel, keras.layers.Conv3D):
    """keras.layers.Conv3D with a quantized kernel (d, h, w, in, out), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantDepthwiseConv1D(QuantizedKernel, keras.layers.DepthwiseConv1D):
    """keras.layers.DepthwiseConv1D with a quantized kernel (steps, C, M), a scale for each of the C * M channels."""


@keras.saving.register_keras_serializable("tfqat")
class QuantDepthwiseConv2D(QuantizedKernel, keras.layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D with a quantized kernel (h, w, C, M), a scale for each of the C * M channels."""


@keras.saving.register_keras_serializable("tfqat")
class QuantConv1DTranspose(QuantizedKernel, keras.layers.Conv1DTranspose):
    """keras.layers.Conv1DTranspose with a quantized kernel (steps, out, in), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantConv2DTranspose(QuantizedKernel, keras.layers.Conv2DTranspose):
    """keras.layers.Conv2DTranspose with a quantized kernel (h, w, out, in), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantConv3DTranspose(QuantizedKernel, keras.layers.Conv3DTranspose):
    """keras.layers.Conv3DTranspose with a quantized kernel (d, h, w, out, in), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantDense(QuantizedKernel, keras.layers.Dense):
    """keras.layers.Dense with a quantized kernel (in, out), a scale for each of ``out``."""


# Kind of op -> the layer that takes its place.
QUANTIZED_LAYERS = {
    "conv1d": QuantConv1D,
    "conv2d": QuantConv2D,
    "conv3d": QuantConv3D,
    "depthwise_conv1d": QuantDepthwiseConv1D,
    "depthwise_conv2d": QuantDepthwiseConv2D,
    "conv1d_transpose": QuantConv1DTranspose,
    "conv2d_transpose": QuantConv2DTranspose,
    "conv3d_transpose": QuantConv3DTranspose,
    "dense": QuantDense,
}
