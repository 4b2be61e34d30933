"""Regularization: L2 on the kernels of a model, as a term of the loss."""

from __future__ import annotations

import keras

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def regularize(model: keras.Model, l2: float) -> None:
    """Adds ``l2 / 2 * sum(kernel ** 2)`` of all trained kernels to the loss; not of biases, BatchNorm and ranges.

    Nothing of it is saved with the model.
    """
    regularizer = keras.regularizers.L2(l2 / 2) if l2 else None
    for variable in model.trainable_variables:
        if variable.name in KERNELS:
            variable.regularizer = regularizer
