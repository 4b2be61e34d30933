"""Mask: a tensor of large negative numbers that softmax turns to nothing, and what it is added to.

On a grid of 256 integers such a number would leave one integer to all others, so neither a mask nor a tensor that
carries one is ever quantized. A mask is what is multiplied by, or chosen with ``where`` from, a number of at least
LARGE; what is computed for it alone (``1 - padding``); and what sums or chooses from it, up to the softmax that takes
it away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfqat.graph.graph import Graph, Op, Ref
from tfqat.graph.kinds import IDENTITY, KERNEL_AXES, OTHER_WEIGHTED

# The smallest in use is BERT's -10000; a factor of 100 (CLIP) or 64 (ArcFace) scales scores that are to be quantized.
LARGE = 1e4
_MOVING = IDENTITY | frozenset(
    "reshape permute transpose squeeze expand_dims swapaxes moveaxis repeat tile broadcast_to get_item slice".split()
)
_SCALING = frozenset({"multiply_constant", "divide_constant"})
_JOINING = frozenset(
    "add subtract add_constant subtract_constant where maximum minimum maximum_constant minimum_constant".split()
)


def masks_in(graph: Graph) -> frozenset[str]:
    """The tensors that are masks, or carry one."""
    large = [op for op in graph.ops if _makes_large(op)]
    found = {tensor for op in large for tensor in op.outputs}
    pure = {op.outputs[0] for op in large if op.kind in _SCALING}
    for op in graph.ops:
        if op.kind in _MOVING | _JOINING and not found.isdisjoint(op.inputs):
            found.update(op.outputs)
            if pure.issuperset(op.inputs):
                pure.update(op.outputs)
    for op in reversed(graph.ops):
        if op.kind not in KERNEL_AXES and op.kind not in OTHER_WEIGHTED and not pure.isdisjoint(op.outputs):
            pure.update(tensor for tensor in op.inputs if _only_for(graph, tensor, pure))
    return frozenset(found | pure)


def _only_for(graph: Graph, tensor: str, masks: set[str]) -> bool:
    """Whether a tensor is read for masks and nothing else."""
    readers = graph.consumers(tensor)
    return tensor not in graph.outputs and all(masks.issuperset(op.outputs) for op in readers)


def _makes_large(op: Op) -> bool:
    if op.kind == "causal_mask":
        return True
    if op.kind not in _SCALING | _JOINING:
        return False
    largest = max((_largest(value) for value in (*op.args, *op.kwargs.values())), default=0.0)
    return largest >= LARGE


def _largest(value: Any) -> float:
    if isinstance(value, Ref | str) or value is None:
        return 0.0
    array = np.asarray(value)
    return float(np.abs(array).max(initial=0)) if array.dtype.kind in "fiu" else 0.0
