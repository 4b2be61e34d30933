"""Residual: which input of an Add comes straight from a convolution and fuses with it."""

from __future__ import annotations

from collections.abc import Collection

from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY


def fused_branches(graph: Graph, heads: Collection[str], skip: Collection[str]) -> dict[str, str]:
    """Add op -> the one input tensor that stays unquantized, since the convolution behind it takes the Add in.

    Such a branch is a convolution and its BatchNorm, each read by nobody else. Where both inputs qualify, the later
    one in the graph is taken (the other has to be in memory by then); the first input where they are equally late.
    Source: TensorRT developer guide, "Q/DQ Layer-Placement Recommendations" (quantize the residual input of an Add).
    """
    chosen = {}
    for op in graph.ops:
        if op.kind != "add" or op.name in skip or len(set(op.inputs)) != 2:
            continue
        ends = [tensor for tensor in op.inputs if _is_branch(graph, tensor, op, heads, skip)]
        if ends:
            chosen[op.name] = max(ends, key=lambda tensor: _level(graph, tensor))
    return chosen


def _level(graph: Graph, tensor: str) -> int:
    op = graph.producer(tensor)
    return graph.levels[op.name] if op is not None else 0


def _is_branch(graph: Graph, tensor: str, reader: Op, heads: Collection[str], skip: Collection[str]) -> bool:
    normalized = False
    while True:
        op = graph.producer(tensor)
        if op is None or op.name in skip or graph.sole_consumer(tensor) is not reader:
            return False
        if op.kind in heads:
            return True
        if op.kind == "batch_normalization" and not normalized:
            normalized = True
        elif op.kind not in IDENTITY:
            return False
        tensor, reader = op.inputs[0], op
