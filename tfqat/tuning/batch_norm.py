"""BatchNorm re-estimation: moving statistics replaced by those of the images, with the quantization in place.

Layer by layer, so that each sees what it will see at inference, where a moving average still holds what earlier weights
gave (arXiv:2105.07576, section 3, "precise BN").
"""

from __future__ import annotations

import keras
import numpy as np

from tfqat.graph.graph import Op
from tfqat.rewrite.batch_norm import FreezableBatchNormalization
from tfqat.tuning.pairs import called_twice
from tfqat.tuning.report import Change, TuneReport
from tfqat.tuning.subject import Subject
from tfqat.tuning.walk import Walk, moments

NAME = "batch_norm"
MEASURE = "farthest of a channel's moving statistics from the images', in standard deviations"


def estimate_batch_norms(subject: Subject) -> TuneReport:
    """Sets the moving statistics of a prepared model in place."""
    walk = subject.walk()
    shared = called_twice(walk.graph)
    changes, left = [], []
    for op in walk.graph.ops:
        if isinstance(op.source.built, FreezableBatchNormalization):
            if reason := _why_not(op, shared):
                left.append((op.name, reason))
            else:
                changes.append(_estimate(op, walk))
        walk.step(op)
        walk.leave(op)
    return TuneReport(NAME, MEASURE, tuple(changes), tuple(left))


def _why_not(op: Op, shared: set[str]) -> str:
    layer = op.source.built
    if op.name in shared:
        return f"the weights of {op.layer_name} are used more than once"
    if len(op.inputs) > 1:
        return "it takes a mask"
    if not layer.trainable:
        return "trainable is false"
    return "it is frozen" if float(keras.ops.convert_to_numpy(layer.frozen)) > 0.5 else ""


def _estimate(op: Op, walk: Walk) -> Change:
    layer = op.source.built
    mean, variance = moments(walk.values(op.inputs[0]), layer.axis)
    before = _distance(layer, mean, variance)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    return Change(op.name, before, _distance(layer, mean, variance))


def _distance(layer: FreezableBatchNormalization, mean: np.ndarray, variance: np.ndarray) -> float:
    """The larger of the mean's distance and the deviation's, over the deviation of the images."""
    deviation = np.sqrt(variance + layer.epsilon)
    moving_mean, moving_variance = (
        np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.moving_mean, layer.moving_variance)
    )
    means = np.abs(moving_mean - mean) / deviation
    deviations = np.abs(np.sqrt(moving_variance + layer.epsilon) / deviation - 1.0)
    return float(np.maximum(means, deviations).max())
