"""Row: what a Placement says of one op; and the table of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tfqat.graph.graph import Graph, Op

if TYPE_CHECKING:
    from tfqat.graph.placement import Placement


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


def table(placement: Placement) -> str:
    """The plan as text: changes, one line a model input and an op, the totals."""
    inputs = set(placement.activations) - {row.op for row in placement.rows}
    entries = [
        (name, "input", "", "", _range_of(placement, name), "") for name in placement.activations if name in inputs
    ]
    entries += [
        (row.op, row.kind, row.state, f"{row.macs:,}" if row.macs else "", _range_of(placement, row.op), row.reason)
        for row in placement.rows
    ]
    lines = [("op", "kind", "state", "MACs", "range after it", "why"), *entries]
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*placement.changes, *body, *_totals(placement)])


def _range_of(placement: Placement, tensor: str) -> str:
    """What the table says of a tensor's range."""
    if tensor in placement.observed:
        return "observed"
    if tensor not in placement.activations:
        return ""
    group = placement.groups.get(tensor)
    return "quantized" if group is None else f"quantized, tied ({group})"


def _totals(placement: Placement) -> list[str]:
    groups = len(set(placement.groups.values()))
    return [
        f"target {placement.target}: {len(placement.weights)} kernels and {len(placement.activations)} tensors "
        f"quantized, {groups} groups of tied ranges, {len(placement.observed)} tensors observed",
        f"INT8 share of multiply-accumulates, output layers aside: {100 * placement.int8_mac_share:.1f} %",
    ]


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
