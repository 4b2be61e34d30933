"""Residual: which input of an Add comes straight from a convolution and fuses with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tfqat.graph.block import Block
from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY


def fused_branches(
    graph: Graph, heads: Collection[str], skip: Collection[str], blocks: Iterable[Block]
) -> dict[str, str]:
    """Add op -> the one input tensor that stays unquantized, since the convolution behind it takes the Add in.

    Such a branch is a convolution and what a block has between the two (BatchNorm, a scale), each read by nobody else.
    Where both inputs qualify, the later
    one in the graph is taken (the other has to be in memory by then); the first input where they are equally late.
    Source: TensorRT developer guide, "Q/DQ Layer-Placement Recommendations" (quantize the residual input of an Add).
    """
    chosen = {}
    passed = _between(blocks, heads)
    for op in graph.ops:
        if op.kind != "add" or op.name in skip or len(set(op.inputs)) != 2:
            continue
        ends = [tensor for tensor in op.inputs if _is_branch(graph, tensor, op, heads, skip, passed)]
        if ends:
            chosen[op.name] = max(ends, key=lambda tensor: _level(graph, tensor))
    return chosen


def _level(graph: Graph, tensor: str) -> int:
    op = graph.producer(tensor)
    return graph.levels[op.name] if op is not None else 0


def _between(blocks: Iterable[Block], heads: Collection[str]) -> frozenset[str]:
    """The kinds that may stand between a head and the Add that it takes in."""
    found: set[str] = set()
    for block in blocks:
        adds = [number for number, step in enumerate(block.steps) if number and step.kinds == {"add"}]
        if adds and not block.takes_floats and not block.steps[0].kinds.isdisjoint(heads):
            found.update(kind for step in block.steps[1 : adds[0]] for kind in step.kinds)
    return frozenset(found)


def _is_branch(
    graph: Graph, tensor: str, reader: Op, heads: Collection[str], skip: Collection[str], passed: Collection[str]
) -> bool:
    normalized = False
    while True:
        op = graph.producer(tensor)
        if op is None or op.name in skip or graph.sole_consumer(tensor) is not reader:
            return False
        if op.kind in heads:
            return True
        if op.kind not in passed and op.kind not in IDENTITY:
            return False
        if op.kind == "batch_normalization":
            if normalized:
                return False
            normalized = True
        tensor, reader = op.inputs[0], op
