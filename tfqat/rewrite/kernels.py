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
from tfqat.core.scheme import Scheme, to_channels
from tfqat.rewrite.fake_quant import fake_quantize_kernel
from tfqat.rewrite.jit import jit_pays

if TYPE_CHECKING:
    from keras.layers import Layer as _Layer
else:
    # Only to a type checker is the mixin the layer that it stands in front of.
    _Layer = object


class QuantizedKernel(_Layer):
    """Mixin: ``kernel`` is ``s * round(kernel / s)``, ``s = max|kernel| / qmax`` per channel, while ``call`` runs.

    Outside of ``call``, ``kernel`` is the float variable, so saving and optimizing never see rounded weights. A
    finalized layer (``finalized=True``) holds ``s * q`` as its kernel and ``s`` as ``kernel_scale``, shape
    ``(channels,)``, and rounds no more.
    """

    def __init__(
        self, *args: Any, weight_scheme: Scheme | dict[str, Any], finalized: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        given = weight_scheme
        self.weight_scheme = given if isinstance(given, Scheme) else Scheme(**{**given, "axis": tuple(given["axis"])})
        self.finalized = finalized
        self.supports_jit = jit_pays()
        self._quantizing = False

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        if self.finalized:
            channels = to_channels(np.empty(self._kernel.shape, np.bool_), self.weight_scheme.axis).shape[1]
            self.kernel_scale = self.add_weight(
                name="kernel_scale", shape=(channels,), initializer="ones", trainable=False, dtype="float32"
            )

    @property
    def kernel(self) -> Any:
        """The float kernel; during ``call`` the quantized one."""
        if not self._quantizing or self.finalized:
            return self._kernel
        kernel = ops.cast(self._kernel, "float32")
        return ops.cast(fake_quantize_kernel(kernel, self.weight_scheme), self.compute_dtype)

    @kernel.setter
    def kernel(self, value: Any) -> None:
        self._kernel = value

    def call(self, inputs: Any) -> Any:
        self._quantizing = True
        try:
            return super().call(inputs)
        finally:
            self._quantizing = False

    def kernel_encoding(self) -> Encoding:
        """The Encoding of the kernel as it stands."""
        if self.finalized:
            scale = ops.convert_to_numpy(self.kernel_scale)
            return Encoding(self.weight_scheme, scale, np.zeros(scale.shape, np.int32))
        return encoding_of_values(self.weight_scheme, ops.convert_to_numpy(self._kernel))

    def save_own_variables(self, store: Any) -> None:
        """As any layer saves: Conv2D's own way knows kernel and bias alone, and would lose the scale."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """The counterpart of ``save_own_variables``."""
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        scheme = {**asdict(self.weight_scheme), "axis": list(self.weight_scheme.axis)}
        return {**super().get_config(), "weight_scheme": scheme, "finalized": self.finalized}


@keras.saving.register_keras_serializable("tfqat")
class QuantConv2D(QuantizedKernel, keras.layers.Conv2D):
    """keras.layers.Conv2D with a quantized kernel (h, w, in, out), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantDepthwiseConv2D(QuantizedKernel, keras.layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D with a quantized kernel (h, w, C, M), a scale for each of the C * M channels."""


@keras.saving.register_keras_serializable("tfqat")
class QuantConv2DTranspose(QuantizedKernel, keras.layers.Conv2DTranspose):
    """keras.layers.Conv2DTranspose with a quantized kernel (h, w, out, in), a scale for each of ``out``."""


@keras.saving.register_keras_serializable("tfqat")
class QuantDense(QuantizedKernel, keras.layers.Dense):
    """keras.layers.Dense with a quantized kernel (in, out), a scale for each of ``out``."""


# Kind of op -> the layer that takes its place.
QUANTIZED_LAYERS = {
    "conv2d": QuantConv2D,
    "depthwise_conv2d": QuantDepthwiseConv2D,
    "conv2d_transpose": QuantConv2DTranspose,
    "dense": QuantDense,
}
