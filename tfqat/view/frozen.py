"""Frozen: ops that are called with ``training=False`` whatever the caller says."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.graph.graph import Op
from tfqat.graph.kinds import IDENTITY
from tfqat.view.custom import is_own


def is_frozen_away(op: Op) -> bool:
    """Whether an op that is always called with ``training=False`` does nothing.

    Raises:
        TfqatError: it does something that a flat model, whose layers are told, cannot be kept from in training.
    """
    if op.kind in IDENTITY:
        return len(op.inputs) == 1
    built = op.source.built
    drops = any(getattr(built, name, None) for name in ("dropout", "recurrent_dropout"))
    told = getattr(built, "_call_has_training_arg", False) and not is_own(op.source.cls)
    if (drops or told) and op.kind != "batch_normalization":
        raise TfqatError(
            f"Layer {op.name!r} ({op.source.cls.__name__}) is called with training=False inside of a call(); tfqat can "
            "keep that for BatchNormalization and Dropout only. Set its dropout to 0, or pass training on."
        )
    return False


def frozen(op: Op) -> Op:
    """A BatchNormalization with the switch on that tfqat's own has as its last weight, and stops its statistics."""
    if op.kind != "batch_normalization" or op.source.cls is not keras.layers.BatchNormalization:
        return op
    return replace(op, source=replace(op.source, values=(*op.source.values, np.float32(1.0))))
