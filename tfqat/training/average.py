"""Average: an optimizer's moving average of the weights (EMA), in place of the weights while a model is looked at.

Learned ranges are averaged as the weights are; moving averages of ranges and of BatchNorm are averages already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from tfqat.training.optimizer import innermost


def has_average(model: keras.Model) -> bool:
    """Whether the optimizer has averaged something yet."""
    optimizer = innermost(model.optimizer)
    return bool(optimizer.use_ema) and int(keras.ops.convert_to_numpy(optimizer.iterations)) > 0


def take_average(model: keras.Model) -> None:
    """Puts the averages in the place of the weights, where there are some."""
    if has_average(model):
        model.optimizer.finalize_variable_values(model.trainable_variables)


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Inside the block the weights are their averages; after it they are, bit for bit, what they were.

    keras.callbacks.SwapEMAWeights adds and subtracts, which changes weights' last bits.
    """
    if not has_average(model):
        yield
        return
    # Copies: TensorFlow's arrays are views of what is about to change.
    kept = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables]
    take_average(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, kept, strict=True):
            variable.assign(value)
