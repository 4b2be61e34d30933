"""INT8 block: ops of a placement with no Quantizer between them, which stay in float together or not at all.

A rule for the convolution alone would leave the ReLU behind it a block of its own, with one more Quantizer between.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass

from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY
from tfqat.graph.placement import Placement

# They stay float by themselves behind a float op, and cost nothing.
_FOLLOWS = IDENTITY | {"batch_normalization"}


@dataclass(frozen=True)
class Int8Block:
    """A part of a model that a target runs on integers.

    Attributes:
        name: of the op that it is known by: the first with a kernel, else the first one.
        ops: names of the ops that rules have to name.
        kernels: those of them whose kernel is quantized.
        macs: multiply-accumulates of an image.
        output: whether it is a float output layer, which reads integers and gives none.
    """

    name: str
    ops: tuple[str, ...]
    kernels: tuple[str, ...]
    macs: int
    output: bool = False


@dataclass(frozen=True)
class Int8Blocks:
    """The blocks of one placement, and of each quantized tensor those that compute and read it."""

    blocks: tuple[Int8Block, ...]
    around: dict[str, tuple[Int8Block, ...]]


def int8_blocks_of(graph: Graph, placement: Placement) -> Int8Blocks:
    """The blocks of a graph by its placement, in order."""
    states = {row.op: row for row in placement.rows}
    int8 = {op.name for op in graph.ops if op.name in states and states[op.name].state == "int8"}
    heads = _heads(graph, placement, int8)
    members: dict[str, list[Op]] = {}
    for op in graph.ops:
        if op.name in heads:
            members.setdefault(heads[op.name], []).append(op)
    made = {head: _block(ops, placement) for head, ops in members.items()}
    for op in graph.ops:
        if op.name in states and states[op.name].output and _reads(graph, op, placement):
            heads[op.name], made[op.name] = op.name, Int8Block(op.name, (op.name,), (), 0, output=True)
    around = {
        tensor: tuple(
            made[head] for head in dict.fromkeys(heads[name] for name in _ends(graph, tensor, heads, placement))
        )
        for tensor in placement.activations
    }
    return Int8Blocks(tuple(made.values()), around)


def rules_for(blocks: Iterable[Int8Block]) -> list[dict[str, object]]:
    """Rules that keep the blocks in float."""
    return [{"match": glob.escape(name), "quantize": False} for block in blocks for name in block.ops]


def low_bit_rules(kernels: Iterable[str], bits: int) -> list[dict[str, object]]:
    """Rules that give the kernels fewer bits."""
    return [{"match": glob.escape(name), "weight_bits": bits} for name in kernels]


def _heads(graph: Graph, placement: Placement, int8: set[str]) -> dict[str, str]:
    """Op -> first op of its block: joined with what it reads where no Quantizer is between."""
    heads: dict[str, str] = {}
    for op in graph.ops:
        if op.name not in int8:
            continue
        before = [
            heads[found.name]
            for tensor in op.inputs
            if tensor not in placement.activations
            and (found := graph.producer(tensor)) is not None
            and found.name in heads
        ]
        heads[op.name] = before[0] if before else op.name
        for other in before[1:]:  # two branches meet in one block
            heads |= {name: before[0] for name, head in heads.items() if head == other}
    return heads


def _block(ops: list[Op], placement: Placement) -> Int8Block:
    rows = {row.op: row for row in placement.rows}
    names = [op.name for op in ops if op.kind not in _FOLLOWS] or [ops[0].name]
    kernels = tuple(op.name for op in ops if op.name in placement.weights)
    # A rule for a layer covers the activation split off from it.
    told = tuple(name for name in names if not any(name.startswith(f"{other}/") for other in names))
    return Int8Block((kernels or told)[0], told, kernels, sum(rows[op.name].macs for op in ops))


def _reads(graph: Graph, op: Op, placement: Placement) -> bool:
    return bool(op.source.values) and any(tensor in placement.activations for tensor in op.inputs)


def _ends(graph: Graph, tensor: str, known: dict[str, str], placement: Placement) -> list[str]:
    """Ops in blocks that compute the tensor, or read it, also through ops that pass its integers on."""
    producer = graph.producer(tensor)
    found = [producer.name] if producer is not None and producer.name in known else []
    pending: list[Op] = list(graph.consumers(tensor))
    seen: set[str] = set()
    while pending:
        op = pending.pop(0)
        if op.name in seen:
            continue
        seen.add(op.name)
        if op.name in known:
            found.append(op.name)
        elif op.name in placement.shared_ops:
            pending += [reader for output in op.outputs for reader in graph.consumers(output)]
    return found
