"""Block of an analysis: what is switched between integers and floats as one.

A kernel and the Quantizers behind it, up to which all ops run as one kernel; or a Quantizer without a kernel (a model
input, a pooling). Each kernel and each Quantizer of a model is in exactly one block, so that a loss has one place.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfqat.graph.graph import Graph, Op
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.rewrite.quantizer import Quantizer


@dataclass(frozen=True)
class Block:
    """A part of a prepared model.

    Attributes:
        name: that of its kernel's op, or of the tensor that it quantizes.
        kind: of that op; ``input`` for a model input.
        kernel: name of the op with the kernel, None without one.
        quantizers: names of its Quantizers' ops.
    """

    name: str
    kind: str
    kernel: str | None
    quantizers: tuple[str, ...]

    @property
    def ops(self) -> frozenset[str]:
        """Names of the ops that round."""
        return frozenset(self.quantizers) | ({self.kernel} if self.kernel else frozenset())


def blocks_of(graph: Graph) -> tuple[Block, ...]:
    """The blocks of a prepared model's view, in order."""
    behind: dict[str, list[str]] = {op.name: [] for op in graph.ops if is_kernel(op)}
    alone: list[Op] = []
    for op in filter(is_quantizer, graph.ops):
        kernels = _kernels_before(graph, op)
        if len(kernels) == 1:
            behind[kernels.pop()].append(op.name)
        else:
            alone.append(op)
    blocks = [Block(name, graph.op(name).kind, name, tuple(found)) for name, found in behind.items()]
    blocks += [Block(op.inputs[0], _kind(graph, op.inputs[0]), None, (op.name,)) for op in alone]
    order = {op.name: number for number, op in enumerate(graph.ops)}
    return tuple(sorted(blocks, key=lambda block: min(order[name] for name in block.ops)))


def is_kernel(op: Op) -> bool:
    """Whether the op rounds its kernel."""
    return isinstance(op.source.built, QuantizedKernel)


def is_quantizer(op: Op) -> bool:
    """Whether the op rounds a tensor."""
    return isinstance(op.source.built, Quantizer)


def _kernels_before(graph: Graph, quantizer: Op) -> set[str]:
    """Names of the kernels from which a Quantizer is reached with no other Quantizer between."""
    found: set[str] = set()
    seen: set[str] = set()
    pending = list(quantizer.inputs)
    while pending:
        op = graph.producer(pending.pop())
        if op is None or op.name in seen or is_quantizer(op):
            continue
        seen.add(op.name)
        if is_kernel(op):
            found.add(op.name)
        else:
            pending.extend(op.inputs)
    return found


def _kind(graph: Graph, tensor: str) -> str:
    op = graph.producer(tensor)
    return "input" if op is None else op.kind
