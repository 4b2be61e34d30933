"""Tail: the ops next to the model's outputs that stay float where a target wants float outputs."""

from __future__ import annotations

from dataclasses import dataclass

from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY, KERNEL_AXES, OTHER_WEIGHTED

# The walk back from an output passes these and no others: a ReLU, an Add or a pooling ends it, or a headless ResNet
# would be float along its whole identity chain. What moves a prediction into its unit (degrees, prices) is passed.
PASSED = IDENTITY | frozenset(
    (
        "softmax log_softmax sigmoid log_sigmoid tanh reshape flatten permute transpose squeeze expand_dims "
        "concatenate rescaling multiply_constant divide_constant add_constant subtract_constant"
    ).split()
)


@dataclass(frozen=True)
class Tail:
    """Names of the ops that stay float (``ops``), and of those at which the walk ended (``ends``)."""

    ops: frozenset[str]
    ends: frozenset[str]


def find_tail(graph: Graph) -> Tail:
    """Walks back from each output up to and including the first weighted op or product of two tensors."""
    passed: set[str] = set()
    ends: set[str] = set()
    pending = list(graph.outputs)
    while pending:
        op = graph.producer(pending.pop())
        if op is None or op.name in passed or op.name in ends:
            continue
        if (op.kind in PASSED and not _weighs(graph, op)) or _folds(graph, op):
            passed.add(op.name)
            pending.extend(op.inputs)
        elif op.kind in KERNEL_AXES or op.kind in OTHER_WEIGHTED or op.kind == "matmul":
            passed.add(op.name)
        else:
            ends.add(op.name)
    return Tail(frozenset(passed), frozenset(ends))


def _weighs(graph: Graph, op: Op) -> bool:
    """Whether the op is the softmax of an attention that gives its scores, too: the product behind it reads INT8."""
    return op.kind == "softmax" and any(reader.kind == "matmul" for reader in _readers(graph, op))


def _readers(graph: Graph, op: Op) -> list[Op]:
    """The readers of an op's output, identities looked through."""
    found = []
    for reader in graph.consumers(op.outputs[0]):
        found += _readers(graph, reader) if reader.kind in IDENTITY else [reader]
    return found


def _folds(graph: Graph, op: Op) -> bool:
    if op.kind != "batch_normalization":
        return False
    before = graph.producer(op.inputs[0])
    return before is not None and before.kind in KERNEL_AXES and graph.sole_consumer(op.inputs[0]) is op
