"""Freeze: ranges and BatchNorm statistics stop moving; weights go on learning."""

from __future__ import annotations

import keras

from tfqat.errors import TfqatError
from tfqat.rewrite.model import batch_norm_layers, kernel_layers, range_layers


def freeze(model: keras.Model) -> None:
    """Stops ranges, learned kernel scales and BatchNorm statistics of a prepared model where they are, in any loop.

    Raises:
        TfqatError: the model has no Quantizers.
    """
    if not range_layers(model) and not kernel_layers(model):
        raise TfqatError(f"Model {model.name!r} has no Quantizers to freeze; give the one that tfqat.prepare returned.")
    freeze_ranges(model)
    freeze_batch_norms(model)


def freeze_ranges(model: keras.Model) -> None:
    """Stops ranges and learned kernel scales; what is frozen stays as it is."""
    for estimator in range_layers(model):
        estimator.freeze()
    for layer in kernel_layers(model):
        layer.freeze_scale()


def freeze_batch_norms(model: keras.Model) -> None:
    """Stops BatchNorm statistics, which training uses from then on."""
    for norm in batch_norm_layers(model):
        norm.freeze()
