"""Carried ranges: those that TFMOT learned, brought to the tensors that a target quantizes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfqat.core.scheme import SCALE_FLOOR, to_channels
from tfqat.graph.graph import Graph, Op
from tfqat.models.tfmot.model import KernelRange, TensorRange

# What these give lies within known bounds, whatever the data.
_BOUNDED: Mapping[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}


@dataclass(frozen=True)
class CarriedRange:
    """The range for one tensor, and where it comes from: ``TFMOT``, a tensor that shares it, or the op's own bounds."""

    range: TensorRange
    origin: str


def carry(graph: Graph, learned: Mapping[str, TensorRange], sharing: Collection[str]) -> dict[str, CarriedRange]:
    """Tensor -> range, for all tensors that have one.

    A tensor's own range comes first, then that of the input of the range-sharing op (named in ``sharing``) that gives
    it, then that of the output of the one that reads it (TFMOT quantizes what a Concat gives, not what it reads).
    """
    found = {tensor: CarriedRange(known, "TFMOT") for tensor, known in learned.items()}
    passing = [op for op in graph.ops if op.name in sharing]
    for op in graph.ops:
        if op.kind in _BOUNDED:
            found.setdefault(op.outputs[0], CarriedRange(TensorRange(*_BOUNDED[op.kind]), f"bounds of {op.kind}"))
    for op in passing:
        _forward(op, found)
    for op in reversed(passing):
        _backward(op, found)
    return found


def _forward(op: Op, found: dict[str, CarriedRange]) -> None:
    known = [found[tensor].range for tensor in op.inputs if tensor in found]
    if len(known) < len(op.inputs):
        return
    joint = TensorRange(min(r.low for r in known), max(r.high for r in known), known[0].bits, known[0].narrow)
    for tensor in op.outputs:
        found.setdefault(tensor, CarriedRange(joint, f"as {', '.join(op.inputs)}"))


def _backward(op: Op, found: dict[str, CarriedRange]) -> None:
    if op.outputs[0] in found:
        for tensor in op.inputs:
            found.setdefault(tensor, CarriedRange(found[op.outputs[0]].range, f"as {op.outputs[0]}"))


def living(learned: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
    """The ranges without those from 0 to 0, which are none: of tensors that saw no data, or nothing but zeros."""
    return {tensor: known for tensor, known in learned.items() if (known.low, known.high) != (0.0, 0.0)}


def moved_to_folded(graph: Graph, folded: Graph, learned: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
    """The ranges in names of a graph with BatchNorms folded: what a folded one gave is now what its kernel gives."""
    moved = dict(learned)
    left = {op.name for op in folded.ops}
    for op in graph.ops:
        if op.name not in left:
            moved.pop(op.inputs[0], None)
            if op.outputs[0] in moved:
                moved[op.inputs[0]] = moved.pop(op.outputs[0])
    return moved


def kernel_extent(found: KernelRange, shape: tuple[int, ...], axis: tuple[int, ...]) -> np.ndarray | None:
    """Largest |w| for each channel of the kernel; for the whole where ``axis`` is empty. None where that loses ranges.

    A range for the whole kernel, or for its last axis, is spread over the channels.
    """
    spread = np.broadcast_to(found.extent, shape)
    if not axis:
        return spread.reshape(-1)[0] if (spread == spread.reshape(-1)[0]).all() else None
    return to_channels(spread, axis)[0]


def settled(kernel: np.ndarray, found: KernelRange) -> np.ndarray:
    """The kernel, its weights moved off ties, so that rounding half to even gives the integers that TFMOT gives.

    TensorFlow's fake quantization multiplies by ``1 / s`` and rounds half up, in an order of its own, which differs
    from ``round(w / s)`` by a step for a few weights in a million. Those are moved by a thousandth of a step.
    """
    high, qmax = np.asarray(found.extent, np.float32), 2 ** (found.bits - 1) - 1
    quantize = tf.quantization.fake_quant_with_min_max_vars_per_channel
    quantize = quantize if high.ndim else tf.quantization.fake_quant_with_min_max_vars
    rounded = quantize(kernel, -high, high, found.bits, narrow_range=True).numpy()
    scale = np.maximum(high / np.float32(qmax), SCALE_FLOOR)
    steps, theirs = kernel / scale, np.rint(rounded / scale)
    inside = (theirs + 0.999 * np.clip(steps - theirs, -0.5, 0.5)) * scale
    return np.where(np.rint(np.clip(steps, -qmax, qmax)) == theirs, kernel, inside).astype(np.float32)


def names(items: Iterable[str], most: int = 12) -> str:
    """The names in one line, the first ones where there are many."""
    listed = list(items)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
