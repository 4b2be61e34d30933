"""WeightedSum: fast normalized fusion of feature maps (arXiv 1911.09070, section 3.3)."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from tfqat.view.custom import quantizable

# Keeps the shares finite where all weights are 0.
EPSILON = 1e-4


@quantizable
@keras.saving.register_keras_serializable("tfqat")
class WeightedSum(layers.Layer):
    """``sum_i x_i * relu(w_i) / (sum_j relu(w_j) + 1e-4)`` of tensors of one shape; the ``w`` are learned, from 1."""

    def build(self, input_shape: Any) -> None:
        self.shares = self.add_weight(name="shares", shape=(len(input_shape),), initializer="ones")

    def call(self, inputs: Any) -> Any:
        positive = ops.relu(self.shares)
        shares = positive / (ops.sum(positive) + EPSILON)
        total = inputs[0] * shares[0]
        for number, tensor in enumerate(inputs[1:], 1):
            total = total + tensor * shares[number]
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]
