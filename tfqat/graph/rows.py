"""Row: what a Placement says of one op; and rows as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from tfqat.graph.graph import Graph, Op, Ref
from tfqat.graph.kinds import KERNEL_AXES

# Lookups and ops with one number a channel multiply nothing that counts.
UNCOUNTED = frozenset(
    (
        "embedding reversible_embedding batch_normalization layer_normalization rms_normalization "
        "group_normalization unit_normalization spectral_normalization normalization prelu multiply_constant "
        "add_constant subtract_constant divide_constant maximum_constant minimum_constant weight"
    ).split()
)

Shape = tuple[int | None, ...]

_STEPPING = frozenset(
    (
        "lstm gru simple_rnn rnn bidirectional time_distributed conv_lstm1d conv_lstm2d conv_lstm3d separable_conv1d "
        "separable_conv2d"
    ).split()
)


@dataclass(frozen=True)
class Row:
    """One op of the plan.

    ``state`` is ``int8``, ``shared`` (takes its input's range) or ``float``; ``macs`` are multiply-accumulates an
    image, 0 for ops that multiply no tensors; ``output`` says that it is one of the float output layers.
    """

    op: str
    kind: str
    state: str
    reason: str
    macs: int
    output: bool = False


def macs_of(graph: Graph, op: Op) -> int:
    """Multiply-accumulates an image of an op; unknown sizes (None) count as 1.

    Exact for convolutions, dense layers, products of two tensors and recurrent layers. What else holds weights (a
    layer of the user's own, one that cannot be seen inside) is estimated: each matrix or kernel counts once a position
    of the output, and other weights once; what only looks up rows of a table multiplies nothing.
    """
    count = _COUNTS.get(op.kind)
    if count is not None:
        return count(graph, op)
    return 0 if op.kind in UNCOUNTED else _weights(graph, op)


def table(lines: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a table under its headings, in columns."""
    cells = [("op", "kind", "state", "MACs", "range after it", "why"), *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _size(shape: Iterable[int | None]) -> int:
    return prod(size or 1 for size in shape)


def _weights(graph: Graph, op: Op) -> int:
    if _looks_up(graph, op):
        return 0
    positions = _positions(op, graph.shapes[op.outputs[0]])
    floats = (value.shape for value in op.source.values if "float" in str(value.dtype))
    return sum(_size(shape) * (positions if len(shape) > 1 else 1) for shape in floats)


def _looks_up(graph: Graph, op: Op) -> bool:
    """Whether a layer that is not seen inside has a table: one of positions, or one for numbers of tokens.

    Pixels are integers too, of eight bits.
    """
    if op.kind.endswith("position_embedding"):
        return True
    return bool(op.inputs) and all(graph.dtypes[tensor] in ("int32", "int64") for tensor in op.inputs)


def _at_outputs(graph: Graph, op: Op) -> int:
    """The kernel once a position of the output."""
    return prod(op.kernel_shape) * _positions(op, graph.shapes[op.outputs[0]])


def _at_inputs(graph: Graph, op: Op) -> int:
    """The kernel once a position of the input."""
    return prod(op.kernel_shape) * _positions(op, graph.shapes[op.inputs[0]])


def _positions(op: Op, shape: tuple[int | None, ...]) -> int:
    first = op.source.config.get("data_format") == "channels_first"
    return _size(shape[2:] if first else shape[1:-1])


def _product(graph: Graph, op: Op) -> int:
    """One a summed element, for each element of the output."""
    summed = graph.shapes[op.inputs[0]][-1 if op.args[:1] == (Ref(0),) else -2]  # else a constant stands in front
    return _size(graph.shapes[op.outputs[0]][1:]) * (summed or 1)


def _conv(graph: Graph, op: Op) -> int:
    """A convolution with a kernel that is computed: once a position of the output, or of the input of a transpose."""
    held = [np.shape(value) for value in (*op.source.values, *op.args)]
    kernel = graph.shapes[op.inputs[1]] if len(op.inputs) > 1 else max(held, key=len, default=())
    end = op.inputs[0] if op.kind == "conv_transpose" else op.outputs[0]
    return _size(kernel) * _positions(op, graph.shapes[end])


def _einsum_dense(graph: Graph, op: Op) -> int:
    """The kernel once for each element of the output that its letters do not name."""
    terms, output = op.source.config["equation"].replace(" ", "").split("->")
    kernel = terms.split(",")[1]
    shape = graph.shapes[op.outputs[0]]
    named = [letter in kernel for letter in output.replace("...", "." * (len(shape) - len(output) + 3))]
    return prod(op.kernel_shape) * _size(s for s, inside in zip(shape[1:], named[1:], strict=True) if not inside)


def _einsum(graph: Graph, op: Op) -> int:
    """An estimate for what is no matrix product: the larger tensor once for each element of the output it lacks."""
    return max(_size(graph.shapes[tensor][1:]) for tensor in (*op.inputs, *op.outputs))


def _each_step(graph: Graph, op: Op) -> int:
    """Each weight, biases apart, once a step or token; a convolution's once a position, too."""
    matrices = [value for value in op.source.values if len(value.shape) > 1 and getattr(value, "name", "") != "bias"]
    kernels = sum(_size(value.shape) for value in matrices)
    return kernels * _size(graph.shapes[op.inputs[0]][1:-1])


def _attention(graph: Graph, op: Op) -> int:
    """The projections once a token, and both products."""
    tensors = [graph.shapes[tensor] for tensor in op.inputs]
    query, value = tensors[0], tensors[min(1, len(tensors) - 1)]
    return _each_step(graph, op) + _size(query[1:-1]) * _size(value[1:-1]) * _widths(op, query, value)


def _widths(op: Op, query: Shape, value: Shape) -> int:
    """How many numbers the two products of an attention multiply for each pair of tokens."""
    config = op.source.config
    if "num_heads" in config:
        return config["num_heads"] * (config["key_dim"] + (config["value_dim"] or config["key_dim"]))
    if "num_query_heads" in config:
        return 2 * config["num_query_heads"] * config["head_dim"]
    return _size(query[-1:]) + _size(value[-1:])


_COUNTS: dict[str, Callable[[Graph, Op], int]] = {
    **{kind: _at_inputs if kind.endswith("_transpose") else _at_outputs for kind in KERNEL_AXES},
    "matmul": _product,
    "einsum_dense": _einsum_dense,
    **dict.fromkeys(("einsum", "tensordot", "dot"), _einsum),
    **dict.fromkeys(("conv", "depthwise_conv", "conv_transpose"), _conv),
    **dict.fromkeys(_STEPPING, _each_step),
    **dict.fromkeys(("multi_head_attention", "grouped_query_attention", "attention", "additive_attention"), _attention),
}
