"""Freezing: layers that do not learn; ranges and BatchNorm statistics that stop moving after so many epochs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import keras

from tfqat.core.listing import some
from tfqat.errors import TfqatError
from tfqat.rewrite.freeze import freeze_batch_norms, freeze_ranges


def freeze_layers(model: keras.Model, training: Any) -> None:
    """Keeps what the spec's training section names as it is; what is prepared from ``model`` keeps it, too.

    Raises:
        TfqatError: a pattern that no layer's name matches, or nothing is left to learn.
    """
    layers = model._flatten_layers(include_self=False)
    layers = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    for pattern in training.freeze:
        matched = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not matched:
            raise TfqatError(
                f"training_config.freeze: no layer's name matches {pattern!r}; the model has "
                f"{some([layer.name for layer in layers])}."
            )
        for layer in matched:
            layer.trainable = False
    if training.freeze_batch_norm:
        for layer in layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    if not model.trainable_variables:
        raise TfqatError("training_config.freeze leaves nothing to learn; name fewer layers.")


def freeze_due(model: keras.Model, training: Any, epoch: int) -> None:
    """Freezes what the spec's training section wants frozen in ``epoch`` (from 0); what is frozen stays as it is."""
    if _due(training.freeze_ranges_epoch, epoch):
        freeze_ranges(model)
    if _due(training.freeze_batch_norm_epoch, epoch):
        freeze_batch_norms(model)


def _due(after: int | None, epoch: int) -> bool:
    return after is not None and epoch >= after
