"""Causal mask: which places of a sequence another place sees, and attention scores of which it sees no other."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# What a masked score becomes, as Keras' Softmax has it: its exponential is 0 beside that of any other score.
MASKED = -1e9


@keras.saving.register_keras_serializable("tfqat")
class CausalMask(keras.layers.Layer):
    """Scores ``(..., rows, columns)`` with MASKED in place of each whose column comes after its row."""

    def call(self, inputs: Any) -> Any:
        rows, columns = _places(*ops.shape(inputs)[-2:])
        return ops.where(rows >= columns, inputs, ops.cast(MASKED, inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable("tfqat")
class SeenPlaces(keras.layers.Layer):
    """Which places of a value ``(batch, columns, ...)`` each place of a query ``(batch, rows, ...)`` sees.

    ``causal``: none that comes after it; ``window``: only those closer than that. Gives bool ``(1, rows, columns)``,
    whose sizes are known when there is data.
    """

    def __init__(self, causal: bool = False, window: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.causal, self.window = causal, window
        self.supports_masking = True  # it reads no values, so none that are masked

    def call(self, query: Any, value: Any) -> Any:
        rows, columns = _places(ops.shape(query)[1], ops.shape(value)[1])
        seen = rows >= columns if self.causal else ops.abs(rows - columns) < self.window
        return ops.expand_dims(seen, 0)

    def compute_output_spec(self, query: Any, value: Any) -> keras.KerasTensor:
        return keras.KerasTensor((1, query.shape[1], value.shape[1]), "bool")

    def compute_mask(self, *tensors: Any) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "causal": self.causal, "window": self.window}


def _places(rows: Any, columns: Any) -> tuple[Any, Any]:
    """The numbers of the rows, as a column, and of the columns."""
    return ops.expand_dims(ops.arange(rows), 1), ops.expand_dims(ops.arange(columns), 0)
