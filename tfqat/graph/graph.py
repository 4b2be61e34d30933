"""Graph: a model as one flat list of ops; plain data, no Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Ref:
    """The place of an op's n-th input within the arguments of its call."""

    index: int


@dataclass(frozen=True, eq=False)
class Source:
    """What an op's layer is made from.

    Attributes:
        cls: the Keras layer or operation class.
        config: its constructor config, ``name`` apart.
        values: its weights (variables or arrays), in the order of ``layer.weights``; fewer leave the rest as made.
        key: ops whose sources have the same key share one layer.
        built: the layer or operation as it stands in the viewed model, None where it exists only on paper.
    """

    cls: Any
    config: Mapping[str, Any]
    values: tuple[Any, ...]
    key: Any
    built: Any = None


@dataclass(frozen=True, eq=False)
class Op:
    """One call of one layer or operation.

    Attributes:
        name: unique, ASCII, without ':' and ','; ``outer/inner`` where nested, ``op/1`` for a second call.
        layer_name: the name without the call's number: what calls of one shared layer have in common.
        kind: what it computes, e.g. ``conv2d``, ``relu6``, ``add`` (see graph.kinds).
        inputs, outputs: tensor names; the first output has the op's name, the others ``name/out1``, ...
        args, kwargs: the call's arguments with a Ref in place of each tensor.
        reason: why it stays float, where viewing it has shown that; else empty.
    """

    name: str
    layer_name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: Source
    args: tuple[Any, ...] = (Ref(0),)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the first weight, () without weights."""
        return tuple(self.source.values[0].shape) if self.source.values else ()


@dataclass(frozen=True, eq=False)
class Graph:
    """A model: ops in topological order, and the tensors between them.

    Attributes:
        inputs, outputs: names of the model's input and output tensors, flat.
        shapes, dtypes: tensor name -> shape (None where unknown; the batch first) and dtype.
        input_structure, output_structure: nests of Refs into ``inputs`` and ``outputs``, as the model takes and gives.
    """

    name: str
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int | None, ...]]
    dtypes: Mapping[str, str]
    input_structure: Any
    output_structure: Any

    @cached_property
    def _producers(self) -> dict[str, Op]:
        return {tensor: op for op in self.ops for tensor in op.outputs}

    @cached_property
    def _consumers(self) -> dict[str, tuple[Op, ...]]:
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for tensor in dict.fromkeys(op.inputs):
                found.setdefault(tensor, []).append(op)
        return {tensor: tuple(ops) for tensor, ops in found.items()}

    @cached_property
    def _by_name(self) -> dict[str, Op]:
        return {op.name: op for op in self.ops}

    def op(self, name: str) -> Op:
        """The op of that name."""
        return self._by_name[name]

    def producer(self, tensor: str) -> Op | None:
        """The op that computes the tensor; None for a model input."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Op, ...]:
        """The ops that read the tensor, in order."""
        return self._consumers.get(tensor, ())

    def sole_consumer(self, tensor: str) -> Op | None:
        """The only reader of a tensor that is no model output; None where there are several, or none.

        What holds a weight alone is called on a tensor, as Keras wants it, and reads none of its values.
        """
        readers = [op for op in self.consumers(tensor) if op.kind != "weight"]
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    @cached_property
    def levels(self) -> dict[str, int]:
        """Op name -> length of the longest way from a model input: the earliest step at which it can run."""
        levels: dict[str, int] = {}
        for op in self.ops:
            producers = (self.producer(tensor) for tensor in op.inputs)
            levels[op.name] = 1 + max((levels[p.name] for p in producers if p is not None), default=0)
        return levels


def replace_ops(graph: Graph, change: Callable[[Op], Op]) -> Graph:
    """The graph with each op replaced by ``change(op)``, which keeps names and tensors."""
    return replace(graph, ops=tuple(change(op) for op in graph.ops))


def bypass(graph: Graph, drop: Iterable[str]) -> Graph:
    """The graph without the one-input ops named in ``drop``: their readers take their input instead.

    A model output that such an op gave is given by its input.
    """
    drop, kept = set(drop), []
    alias: dict[str, str] = {}
    for op in graph.ops:
        inputs = tuple(alias.get(tensor, tensor) for tensor in op.inputs)
        if op.name in drop:
            alias[op.outputs[0]] = inputs[0]
        else:
            kept.append(replace(op, inputs=inputs))
    outputs = tuple(alias.get(tensor, tensor) for tensor in graph.outputs)
    return replace(graph, ops=tuple(kept), outputs=outputs)


def insert_after(graph: Graph, additions: Mapping[str, Op], *, keep_outputs: Iterable[str] = ()) -> Graph:
    """The graph with one op put behind each tensor named in ``additions``; all its readers read the new op's output.

    Model outputs are rewired too, but for those in ``keep_outputs``.
    """
    alias = {tensor: op.outputs[0] for tensor, op in additions.items()}
    kept = set(keep_outputs)
    ops = [additions[tensor] for tensor in graph.inputs if tensor in additions]
    for op in graph.ops:
        ops.append(replace(op, inputs=tuple(alias.get(tensor, tensor) for tensor in op.inputs)))
        ops.extend(additions[tensor] for tensor in op.outputs if tensor in additions)
    outputs = tuple(tensor if tensor in kept else alias.get(tensor, tensor) for tensor in graph.outputs)
    shapes = dict(graph.shapes) | {alias[t]: graph.shapes[t] for t in alias}
    dtypes = dict(graph.dtypes) | {alias[t]: graph.dtypes[t] for t in alias}
    return replace(graph, ops=tuple(ops), outputs=outputs, shapes=shapes, dtypes=dtypes)
