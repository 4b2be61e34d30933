"""Channels: the input channels of a kernel, and its largest weight in each; numpy only.

Output channels are those of ``KERNEL_AXES``. An input channel of a depthwise kernel (h, w, C, M) is one of C, of a
transposed one (h, w, out, in) the last axis, of others (h, w, in, out) the last but one, of which a grouped convolution
has a part for each group of outputs.
"""

from __future__ import annotations

import numpy as np

from tfqat.core.scheme import broadcast, to_channels
from tfqat.graph.graph import Op
from tfqat.graph.kinds import KERNEL_AXES


def output_ranges(op: Op, kernel: np.ndarray) -> np.ndarray:
    """max|w| of each output channel."""
    return np.asarray(np.abs(to_channels(kernel, KERNEL_AXES[op.kind])).max(axis=0))


def on_outputs(op: Op, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value an output channel, shaped to multiply the kernel."""
    return broadcast(values, len(shape), shape, KERNEL_AXES[op.kind])


def input_ranges(op: Op, kernel: np.ndarray, channels: int) -> np.ndarray:
    """max|w| of each of the ``channels`` that reach the op; a flattened image has each of them once a place."""
    index = np.broadcast_to(_input_index(op, kernel.shape) % channels, kernel.shape)
    found = np.zeros(channels)
    np.maximum.at(found, index.ravel(), np.abs(kernel).ravel())
    return found


def on_inputs(op: Op, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value an input channel, shaped to multiply the kernel."""
    return np.asarray(values)[_input_index(op, shape) % len(values)]


def _input_index(op: Op, shape: tuple[int, ...]) -> np.ndarray:
    """The number of the input channel that each weight is multiplied by, in a shape that broadcasts to the kernel's."""
    if op.kind.endswith("transpose"):
        return np.arange(shape[-1])
    if op.kind.startswith("depthwise"):
        return np.arange(shape[-2])[:, None]
    inside = np.arange(shape[-2])[:, None]
    groups = op.source.config.get("groups", 1)
    return inside + np.arange(shape[-1]) // (shape[-1] // groups) * shape[-2]
