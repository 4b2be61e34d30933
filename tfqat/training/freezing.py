"""Freezing: ranges and BatchNorm statistics that stop moving after so many epochs; weights go on learning."""

from __future__ import annotations

from typing import Any

import keras

from tfqat.rewrite.freeze import freeze_batch_norms, freeze_ranges


def freeze_due(model: keras.Model, training: Any, epoch: int) -> None:
    """Freezes what the spec's training section wants frozen in ``epoch`` (from 0); what is frozen stays as it is."""
    if _due(training.freeze_ranges_epoch, epoch):
        freeze_ranges(model)
    if _due(training.freeze_batch_norm_epoch, epoch):
        freeze_batch_norms(model)


def _due(after: int | None, epoch: int) -> bool:
    return after is not None and epoch >= after
