"""Regularization: L2 on the kernels of a model, as a term of the loss."""

from __future__ import annotations

import keras

from tfqat.errors import TfqatError

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


class _SpecL2(keras.regularizers.L2):
    """One that was asked for here, and not by the model itself."""


def regularize(model: keras.Model, l2: float) -> None:
    """Adds ``l2 / 2 * sum(kernel ** 2)`` of all trained kernels to the loss; not of biases, BatchNorm and ranges.

    Nothing of it is saved with the model. A model's own regularizers stay.

    Raises:
        TfqatError: a kernel has one of its own.
    """
    if not l2:
        return
    kernels = [variable for variable in model.trainable_variables if variable.name in KERNELS]
    for kernel in kernels:
        if kernel.regularizer is not None and not isinstance(kernel.regularizer, _SpecL2):
            raise TfqatError(
                f"training_config.l2 is {l2:g}, but {kernel.path!r} has a regularizer of its own in the model. Set l2 "
                "to 0, or remove kernel_regularizer from the model."
            )
        kernel.regularizer = _SpecL2(l2 / 2)
