"""Operation: the class behind a function of ``keras.ops``, which Keras names nowhere."""

from __future__ import annotations

from functools import cache

import keras


@cache
def class_of(function: str) -> type:
    """The class of the operation that a function of ``keras.ops`` makes of symbolic tensors."""
    tensor = keras.KerasTensor((2, 2))
    given = {"where": (tensor, tensor, tensor), "normalize": (tensor,)}.get(function, (tensor, tensor))
    return type(getattr(keras.ops, function)(*given)._keras_history.operation)
