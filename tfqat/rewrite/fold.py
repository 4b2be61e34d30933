"""Fold: BatchNorm multiplied into the kernel before it.

``y = gamma * (conv(x, w) + b - mean) / sqrt(variance + epsilon) + beta`` is a convolution with kernel ``g * w`` and
bias ``beta + (b - mean) * g``, ``g = gamma / sqrt(variance + epsilon)`` per output channel (arXiv:1712.05877, 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import numpy as np
from keras import ops

from tfqat.core.scheme import SCALE_FLOOR
from tfqat.graph.graph import Graph, Op, Source, bypass
from tfqat.graph.kinds import KERNEL_AXES


def fold_batch_norms(graph: Graph, chosen: Callable[[Op], bool] = lambda op: True) -> Graph:
    """The graph without the BatchNorms that are the only reader of a weighted op, a chosen one, on its channel axis.

    A layer that is called twice is folded where each call has the same BatchNorm; else each call gets its own kernel.
    """
    folded: dict[str, Op] = {}
    for norm in graph.ops:
        before = graph.producer(norm.inputs[0]) if norm.kind == "batch_normalization" else None
        if before is not None and chosen(before) and _folds(graph, before, norm):
            folded[norm.name] = before
    sources = {before.name: _folded_source(before, graph.op(name)) for name, before in folded.items()}
    ops_ = tuple(replace(op, source=sources.get(op.name, op.source)) for op in graph.ops)
    return bypass(replace(graph, ops=ops_), folded)


def _folds(graph: Graph, before: Op, norm: Op) -> bool:
    alone = before.kind in KERNEL_AXES and graph.sole_consumer(before.outputs[0]) is norm
    if before.source.config.get("finalized") and not _takes_gain(before):
        return False
    rank = len(graph.shapes[before.outputs[0]])
    axis = norm.source.config.get("axis", -1) % rank
    return alone and axis == (rank - 1 if _last_channels(before) else 1)


def _takes_gain(op: Op) -> bool:
    """Whether the finalized kernel stays on a grid when each channel is multiplied: symmetric, a scale a channel."""
    numbers = op.source.values[1 + op.source.config["use_bias"] :]
    return len(numbers) == 1 and np.ndim(numbers[0]) == 1


def _last_channels(op: Op) -> bool:
    return op.source.config.get("data_format", "channels_last") in (None, "channels_last")


def _folded_source(op: Op, norm: Op) -> Source:
    values = [_array(value) for value in op.source.values]
    gain, shift = affine(norm)
    config = op.source.config
    bias = values[1] if config["use_bias"] else np.zeros_like(shift)
    kernel, rest = _folded_kernel(op, values, gain)
    new = (kernel, bias * gain + shift, *rest)
    return replace(
        op.source,
        config={**config, "use_bias": True},
        values=tuple(value.astype(np.float32) for value in new),
        key=(op.source.key, norm.source.key),
        built=None,
    )


def _folded_kernel(op: Op, values: list[np.ndarray], gain: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The kernel times the gain; a finalized one keeps its integers, and its scale s becomes ``|gain| * s``."""
    spread = partial(_spread, shape=values[0].shape, axes=KERNEL_AXES[op.kind])
    if not op.source.config.get("finalized"):
        return values[0] * spread(gain), []
    scale = values[-1]
    folded = np.maximum(np.abs(gain) * scale, SCALE_FLOOR).astype(np.float32)
    integers = np.rint(values[0] / spread(scale)) * spread(np.sign(gain))
    return integers.astype(np.float32) * spread(folded), [folded]


def affine(norm: Op) -> tuple[np.ndarray, np.ndarray]:
    """What a BatchNorm multiplies by and what it adds at inference: gain and shift, float64, shape (channels,)."""
    config, values = norm.source.config, [_array(value) for value in norm.source.values]
    gamma = values.pop(0) if config["scale"] else 1.0
    beta = values.pop(0) if config["center"] else 0.0
    mean, variance = values[:2]
    gain = gamma / np.sqrt(variance + config["epsilon"])
    return gain, beta - mean * gain


def _spread(gain: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """The gain shaped to multiply a kernel whose channel axes, counted from the end, are ``axes``."""
    positions = {len(shape) + axis for axis in axes}
    return gain.reshape([size if position in positions else 1 for position, size in enumerate(shape)])


def _array(value: object) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value, np.float64)
