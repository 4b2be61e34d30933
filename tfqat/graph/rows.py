"""Row: what a Placement says of one op; and rows as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from tfqat.graph.graph import Graph, Op


@dataclass(frozen=True)
class Row:
    """One op of the plan.

    ``state`` is ``int8``, ``shared`` (takes its input's range) or ``float``; ``macs`` are multiply-accumulates an
    image, 0 for ops without a kernel; ``output`` says that it is one of the float output layers.
    """

    op: str
    kind: str
    state: str
    reason: str
    macs: int
    output: bool = False


def macs_of(graph: Graph, op: Op) -> int:
    """Multiply-accumulates an image of a weighted op; unknown sizes (None) count as 1."""
    if op.kind not in _POSITIONS:
        return 0
    shape = graph.shapes[_POSITIONS[op.kind](op)]
    return prod(op.kernel_shape) * prod(size or 1 for size in shape[1:-1])


def table(lines: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a table under its headings, in columns."""
    cells = [("op", "kind", "state", "MACs", "range after it", "why"), *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _output_of(op: Op) -> str:
    return op.outputs[0]


def _input_of(op: Op) -> str:
    return op.inputs[0]


# Each kernel is applied once a position of this tensor.
_POSITIONS = {
    "conv2d": _output_of,
    "depthwise_conv2d": _output_of,
    "conv2d_transpose": _input_of,
    "dense": _output_of,
    "conv1d": _output_of,
    "conv3d": _output_of,
    "depthwise_conv1d": _output_of,
}
