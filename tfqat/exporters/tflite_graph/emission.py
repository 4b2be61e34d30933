"""Emission: a float graph on its way into a flatbuffer; which tensors are written already, and on which grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType

from tfqat.core.encoding import Encoding, Encodings, usable
from tfqat.exporters.tflite_graph.flatbuffer import Flatbuffer, Shape, Tensor
from tfqat.graph.graph import Graph, Op

# Activations that an operator can apply to its own result before rounding it.
FUSED = {
    "linear": ActivationFunctionType.NONE,
    "relu": ActivationFunctionType.RELU,
    "relu6": ActivationFunctionType.RELU6,
    "hard_tanh": ActivationFunctionType.RELU_N1_TO_1,
}


class Unsupported(ValueError):
    """What an op asks for that no integer operator does; the message says how to mend it."""


@dataclass(frozen=True, eq=False)
class Step:
    """An op and the activation that is fused into it, which together give one tensor.

    Attributes:
        op: the op.
        follower: the activation, None where there is none.
    """

    op: Op
    follower: Op | None = None

    @property
    def output(self) -> str:
        """The tensor that it gives; of a split, the first."""
        return self.op.outputs[0] if self.follower is None else self.follower.outputs[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All tensors that it gives."""
        return self.op.outputs if self.follower is None else self.follower.outputs

    @property
    def activation(self) -> int:
        """The fused activation, as the schema numbers it."""
        return FUSED["linear" if self.follower is None else self.follower.kind]


class Emission:
    """What has been written of a graph so far; ``requantize`` writes a Tensor on another grid."""

    def __init__(self, graph: Graph, learnt: Encodings, flatbuffer: Flatbuffer, requantize: Requantize) -> None:
        self.graph, self.learnt, self.flatbuffer, self._requantize = graph, learnt, flatbuffer, requantize
        self.tensors: dict[str, Tensor] = {}
        self.requantized: dict[tuple[str, bytes], Tensor] = {}
        self.derived: dict[str, str] = {}  # tensors whose scale was not learned -> where it is from

    def encoding(self, tensor: str) -> Encoding:
        """The Encoding of a tensor of the graph; of a dead one, an Encoding that kernels can scale to.

        Raises:
            Unsupported: it has none.
        """
        if tensor not in self.learnt.activations:
            raise Unsupported(f"{tensor!r} has no scale")
        return usable(self.learnt.activations[tensor])

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor of the graph, None for the batch.

        Raises:
            Unsupported: another size is unknown, too.
        """
        shape = tuple(self.graph.shapes[tensor])
        if None in shape[1:]:
            raise Unsupported(f"{tensor!r} has the shape {shape}: give the model inputs a fixed size")
        return shape

    def declare(self, tensor: str) -> Tensor:
        """A tensor of the graph, ready to be written."""
        if tensor in self.learnt.activations and self.learnt.activations[tensor].dead:
            self.derived[tensor] = "zero wherever it was looked at: a scale in common use"
        self.tensors[tensor] = self.flatbuffer.activation(tensor, self.shape(tensor), self.encoding(tensor))
        return self.tensors[tensor]

    def hold(self, tensor: str, integers: Any) -> None:
        """A tensor of the graph whose values the file holds."""
        encoding = self.encoding(tensor)
        stored = self.flatbuffer.constant(
            tensor, np.asarray(integers, np.int8), encoding.scale, zero_point=int(encoding.zero_point)
        )
        self.tensors[tensor] = replace(stored, encoding=encoding)

    def inner(self, name: str, shape: Shape, encoding: Encoding | None) -> Tensor:
        """A tensor that the graph does not know."""
        return self.flatbuffer.activation(name, shape, encoding)

    def read(self, tensor: str, encoding: Encoding | None = None) -> Tensor:
        """A tensor of the graph, which has been written, on the grid of ``encoding`` where one is needed."""
        found = self.tensors[tensor]
        if encoding is None or _same_grid(found.encoding, encoding):
            return found
        key = (tensor, encoding.scale.tobytes() + encoding.zero_point.tobytes())
        if key not in self.requantized:
            self.requantized[key] = self._requantize(self, found, encoding, f"{tensor}/requantized")
        return self.requantized[key]

    def integers(self, name: str, values: Any) -> Tensor:
        """An int32 constant: a shape, axes, sizes."""
        return self.flatbuffer.constant(name, np.asarray(values, np.int32))

    def reshape(self, source: Tensor, result: Tensor) -> None:
        """Appends a RESHAPE, whatever the batch is resized to."""
        sizes = [-1 if size is None else size for size in result.shape]
        self.flatbuffer.add("RESHAPE", [source, self.integers(f"{result.name}/shape", sizes)], result)

    def add(
        self, step: Step, operator: str, inputs: Sequence[Tensor], version: int | None = None, **options: Any
    ) -> None:
        """Appends the operator that computes the step's output."""
        self.flatbuffer.add(operator, inputs, self.declare(step.output), version, **options)

    def add_shared(self, step: Step, operator: str, *constants: Tensor, **options: Any) -> None:
        """``add`` for an operator whose only input has the grid of its output."""
        source = self.read(step.op.inputs[0], self.encoding(step.output))
        self.add(step, operator, [source, *constants], **options)


# From a Tensor to one with the same numbers on the grid of an Encoding, under the given name.
Requantize = Callable[[Emission, Tensor, Encoding, str], Tensor]


def setting(op: Op, key: str, default: Any = None) -> Any:
    """An argument of the op's call, or of its layer's constructor."""
    return op.kwargs.get(key, op.source.config.get(key, default))


def check_channels_last(op: Op) -> None:
    """Refuses channels first: TFLite knows no other order than (batch, height, width, channels)."""
    if setting(op, "data_format") not in (None, "channels_last"):
        raise Unsupported("data_format is channels_first: build the model with channels_last")


def positive_axes(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the start; all where None is given.

    Raises:
        Unsupported: the batch is one of them.
    """
    given = range(rank) if axes is None else [axes] if isinstance(axes, int) else axes
    found = tuple(sorted(int(axis) % rank for axis in given))
    if 0 in found:
        raise Unsupported("it works along the batch: leave the first axis out")
    return found


def _same_grid(one: Encoding | None, other: Encoding) -> bool:
    return one is not None and one.scale == other.scale and one.zero_point == other.zero_point
