"""TimeDistributed: a layer or model on each step of a series, seen as the layer on all steps at once."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfqat.view.trace_error import TraceError


class EachStep(keras.layers.Layer):
    """What a ``TimeDistributed`` computes, between two reshapes: the steps of all images are one batch.

    A BatchNormalization inside normalizes by all steps of a batch in training, where Keras' own takes each step alone.

    Input: ``(batch, steps, ...)`` with a known number of steps.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if inputs.shape[1] is None:
            raise TraceError("its number of steps is unknown; give the Input a fixed one")
        told = {"training": training} if self.layer._call_has_training_arg else {}
        outputs = self.layer(ops.reshape(inputs, (-1, *inputs.shape[2:])), **told)
        return ops.reshape(outputs, (-1, inputs.shape[1], *outputs.shape[1:]))


def is_repeated(operation: Any) -> bool:
    """Whether it is a TimeDistributed to be seen so; that of a Dense is the Dense."""
    return type(operation) is keras.layers.TimeDistributed and type(operation.layer) is not keras.layers.Dense


def at_once(operation: Any) -> Any:
    """The layer to look inside of in place of a TimeDistributed; any other as it is."""
    if not is_repeated(operation):
        return operation
    return EachStep(operation.layer, name=operation.name, dtype=operation.dtype_policy)
