"""RepeatBatch: a layer that gives each image of a batch the same tensor, such as a class token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfqat")
class RepeatBatch(keras.layers.Layer):
    """``[like, x]`` -> ``x`` broadcast to ``(batch of like, *shape)``.

    It adds 0 for each image, since an op that asks for the batch's size has no like on most accelerators.
    """

    def __init__(self, shape: Sequence[int | None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._convert_input_args = False
        self.shape = tuple(shape)

    def call(self, inputs: Any) -> Any:
        like, x = inputs
        one = like[(slice(None), *[slice(0, 1)] * (len(like.shape) - 1))]
        zero = ops.zeros_like(ops.cast(ops.reshape(one, (-1, *[1] * len(self.shape))), x.dtype))
        return ops.broadcast_to(x, (1, *self.shape)) + zero

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor((inputs[0].shape[0], *self.shape), inputs[1].dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": list(self.shape)}
