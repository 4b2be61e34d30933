"""Sign: which tensors are known to have no negative values, whatever the data."""

from __future__ import annotations

from tfqat.graph.graph import Graph
from tfqat.graph.kinds import IDENTITY

_NONNEGATIVE = frozenset("relu relu6 sigmoid hard_sigmoid softmax masked_softmax softplus exponential".split())
# They pass values on, or mix values of one tensor.
_KEEPS_SIGN = IDENTITY | frozenset(
    ["max_pooling2d", "average_pooling2d", "global_average_pooling2d", "reshape", "flatten"]
)


def is_nonnegative(graph: Graph, tensor: str) -> bool:
    """Whether the tensor comes from an op that gives no negative values, through ops that keep it so."""
    op = graph.producer(tensor)
    while op is not None and op.kind in _KEEPS_SIGN:
        op = graph.producer(op.inputs[0])
    return op is not None and op.kind in _NONNEGATIVE
