"""Constant: a tensor that depends on no input of the model: a weight, a table looked up at fixed places, their sums.

A converter computes it once, so that exported files hold numbers in its place and no op that a Quantizer could follow.
"""

from __future__ import annotations

from dataclasses import replace

from tfqat.graph.causes import PRODUCT_WITH_CONSTANT
from tfqat.graph.graph import Graph, Op, replace_ops
from tfqat.graph.kinds import BINARY


def constants_in(graph: Graph) -> frozenset[str]:
    """The tensors that depend on no model input. What holds a weight alone is called on a tensor, but reads none."""
    found: set[str] = set()
    for op in graph.ops:
        if op.kind == "weight" or found.issuperset(op.inputs):
            found.update(op.outputs)
    return frozenset(found)


def inner_constants(graph: Graph) -> frozenset[str]:
    """The constants that only other constants are computed from: no file holds them, so nothing rounds them."""
    constants = constants_in(graph)

    def is_inner(tensor: str) -> bool:
        readers = graph.consumers(tensor)
        return tensor not in graph.outputs and all(constants.issuperset(reader.outputs) for reader in readers)

    return frozenset(filter(is_inner, constants))


def with_constants(graph: Graph) -> Graph:
    """The graph with the kinds of ops on a tensor and a constant as if the constant were among their arguments.

    ``add`` becomes ``add_constant``, and so on; a ``matmul`` with a constant stays float.
    """
    constants = constants_in(graph)

    def told(op: Op) -> Op:
        if constants.isdisjoint(op.inputs) or constants.issuperset(op.outputs):
            return op
        if op.kind in BINARY and len(op.inputs) == 2:
            return replace(op, kind=f"{op.kind}_constant")
        return replace(op, reason=op.reason or PRODUCT_WITH_CONSTANT) if op.kind == "matmul" else op

    return replace_ops(graph, told) if constants else graph
