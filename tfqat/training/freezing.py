"""Freezing: ranges and BatchNorm statistics that stop moving after so many epochs; weights go on learning."""

from __future__ import annotations

from typing import Any

import keras

from tfqat.rewrite.model import batch_norm_layers, kernel_layers, range_layers


def freeze_due(model: keras.Model, training: Any, epoch: int) -> None:
    """Freezes what the spec's training section wants frozen in ``epoch`` (from 0); what is frozen stays as it is."""
    if _due(training.freeze_ranges_epoch, epoch):
        for estimator in range_layers(model):
            estimator.freeze()
        for layer in kernel_layers(model):
            layer.freeze_scale()
    if _due(training.freeze_batch_norm_epoch, epoch):
        for norm in batch_norm_layers(model):
            norm.freeze()


def _due(after: int | None, epoch: int) -> bool:
    return after is not None and epoch >= after
