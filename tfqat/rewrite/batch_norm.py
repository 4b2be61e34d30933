"""FreezableBatchNormalization: the stock layer whose statistics can be stopped in any loop, also a compiled one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfqat.rewrite.jit import jit_pays


@keras.saving.register_keras_serializable("tfqat")
class FreezableBatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization with a switch: once frozen, training uses the moving statistics and leaves them.

    ``gamma`` and ``beta`` go on learning. The switch is a variable, not an attribute, so that a loop that was traced
    before ``freeze`` obeys it too. With ``fused_kernel`` evaluation of images on the TensorFlow backend runs the kernel
    that Keras 2 runs, ``(x - mean) * g + beta``, which differs from ``x * g + (beta - mean * g)`` in the last bits.
    """

    def __init__(self, fused_kernel: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fused_kernel = fused_kernel
        self.supports_jit = jit_pays()

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        self.frozen = self.add_weight(
            name="frozen", shape=(), initializer="zeros", trainable=False, dtype="float32", autocast=False
        )

    def freeze(self) -> None:
        """Stops the moving statistics where they are."""
        self.frozen.assign(1.0)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.fused_kernel and not training and len(inputs.shape) == 4 and keras.backend.backend() == "tensorflow":
            return self._fused(inputs)
        if not (training and self.trainable) or self.renorm:
            return super().call(inputs, training=training, mask=mask)
        values = ops.cast(inputs, "float32")
        mean, variance = self._moments(values, mask)
        frozen = self.frozen > 0.5
        momentum = ops.where(frozen, 1.0, self.momentum)
        old_mean, old_variance = ops.cast(self.moving_mean, "float32"), ops.cast(self.moving_variance, "float32")
        mean, variance = ops.where(frozen, old_mean, mean), ops.where(frozen, old_variance, variance)
        self.moving_mean.assign(old_mean * momentum + mean * (1.0 - momentum))
        self.moving_variance.assign(old_variance * momentum + variance * (1.0 - momentum))
        outputs = ops.batch_normalization(
            values,
            mean,
            variance,
            axis=self.axis,
            offset=ops.cast(self.beta, "float32") if self.center else None,
            scale=ops.cast(self.gamma, "float32") if self.scale else None,
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _fused(self, inputs: Any) -> Any:
        import tensorflow as tf

        ones = tf.ones_like(self.moving_mean)
        outputs, *_ = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            ops.convert_to_tensor(self.gamma) if self.scale else ones,
            ops.convert_to_tensor(self.beta) if self.center else tf.zeros_like(ones),
            ops.convert_to_tensor(self.moving_mean),
            ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            data_format="NHWC" if self.axis in (-1, 3) else "NCHW",
            is_training=False,
        )
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fused_kernel": self.fused_kernel}
