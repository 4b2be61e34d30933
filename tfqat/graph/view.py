"""View: a Keras model seen as a Graph, with nested models inlined and composite layers split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
from keras import tree

from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph, Op, Ref, Source
from tfqat.graph.kinds import kind_of
from tfqat.graph.parts import PREVIOUS, Part, parts_of

# Keras forbids '/' in the names of layers; a nested op's layer has this in its place. It is valid in TensorFlow's
# name scopes and hardly ever part of a user's name.
NESTING = ">"


def view(model: keras.Model) -> Graph:
    """The model as a Graph; the model itself is only read.

    Sequential, nested and subclassed models are inlined (a subclassed one by calling its ``call`` on symbolic
    inputs, so it must be made of layers and ``keras.ops``); fused activations and separable convolutions are split.

    Raises:
        TfqatError: the model has no known input shape, or a subclassed ``call`` cannot run on symbolic tensors.
    """
    return _Viewer().view(model)


def layer_name_of(op_layer_name: str) -> str:
    """The Keras layer name under which an op's layer stands in a flat model."""
    return op_layer_name.replace("/", NESTING)


class _Viewer:
    """The state of one viewing: names in use, ops found so far."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.traced: list[Any] = []  # kept alive: ops and tensors are told apart by id
        self.calls: dict[str, int] = {}
        self.used: set[str] = set()
        self.layer_names: dict[Any, str] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.dtypes: dict[str, str] = {}

    def view(self, model: keras.Model) -> Graph:
        function = self._functional(model)
        names = {id(tensor): self._input_name(tensor) for tensor in function.inputs}
        inputs = tuple(names[id(tensor)] for tensor in function.inputs)
        outputs = self._inline(function, names, prefix="")
        return Graph(
            name=model.name,
            ops=tuple(self.ops),
            inputs=inputs,
            outputs=tuple(outputs),
            shapes=self.shapes,
            dtypes=self.dtypes,
            input_structure=_numbered(function._inputs_struct),
            output_structure=_numbered(function._outputs_struct),
        )

    def _functional(self, model: keras.Model, node: Any = None) -> Any:
        """The functional model that a Sequential, functional or subclassed one amounts to."""
        if isinstance(model, keras.Sequential):
            if not model.built:
                raise TfqatError(f"Sequential model {model.name!r} has no input shape yet: add keras.Input(shape).")
            return model._functional
        if hasattr(model, "_nodes_by_depth"):
            return model
        traced = _trace(model, node)
        self.traced.append(traced)
        return traced

    def _input_name(self, tensor: keras.KerasTensor) -> str:
        name = self._unique(_clean(tensor._keras_history.operation.name))
        self.shapes[name], self.dtypes[name] = tuple(tensor.shape), str(tensor.dtype)
        return name

    def _inline(self, function: Any, names: dict[int, str], prefix: str) -> list[str]:
        """Appends the ops of a functional model; ``names`` maps ids of its input tensors to the outer names."""
        for node in _nodes_in_order(function):
            operation = node.operation
            if isinstance(operation, keras.Model):
                outputs = self._inline_call(operation, node, names, prefix)
            else:
                outputs = self._add(operation, node, names, prefix)
            names.update(zip((id(tensor) for tensor in node.outputs), outputs, strict=True))
        return [names[id(tensor)] for tensor in tree.flatten(function._outputs_struct)]

    def _inline_call(self, model: keras.Model, node: Any, names: dict[int, str], prefix: str) -> list[str]:
        function = self._functional(model, node)
        given = [names[id(tensor)] for tensor in node.arguments.keras_tensors]
        inner = {id(tensor): name for tensor, name in zip(function.inputs, given, strict=True)}
        return self._inline(function, inner, f"{prefix}{_clean(model.name)}/")

    def _add(self, operation: Any, node: Any, names: dict[int, str], prefix: str) -> list[str]:
        inputs = [names[id(tensor)] for tensor in node.arguments.keras_tensors]
        tensors: tuple[str, ...] = ()
        for part in parts_of(self._whole(operation, node, inputs, prefix)):
            reads = tuple(tensors[0] if index == PREVIOUS else inputs[index] for index in part.reads)
            tensors = self._append(part, reads, node.outputs).outputs
        return list(tensors)

    def _whole(self, operation: Any, node: Any, inputs: list[str], prefix: str) -> Op:
        """The call as one op, before it is split into parts and numbered."""
        config = _config(operation)
        args, kwargs = _with_refs(node)
        base = self._base(operation, f"{prefix}{_clean(operation.name.replace(NESTING, '/'))}")
        values = tuple(operation.weights) if isinstance(operation, keras.layers.Layer) else ()
        source = Source(type(operation), config, values, id(operation), operation)
        kind = kind_of(type(operation).__name__, config | kwargs, len(inputs))
        return Op(base, base, kind, tuple(inputs), (base,), source, args, kwargs)

    def _base(self, operation: Any, wanted: str) -> str:
        if id(operation) not in self.layer_names:
            self.layer_names[id(operation)] = self._unique(wanted)
        return self.layer_names[id(operation)]

    def _append(self, part: Part, inputs: tuple[str, ...], results: list[keras.KerasTensor]) -> Op:
        name = self._call_name(part.op.layer_name)
        outputs = (name, *(f"{name}/out{i}" for i in range(1, len(results))))
        op = replace(part.op, name=name, inputs=inputs, outputs=outputs)
        for output, tensor in zip(outputs, results, strict=True):
            shape = tuple(tensor.shape) if part.channels is None else (*tensor.shape[:-1], part.channels)
            self.shapes[output], self.dtypes[output] = shape, str(tensor.dtype)
        self.ops.append(op)
        return op

    def _call_name(self, layer_name: str) -> str:
        number = self.calls.get(layer_name, 0)
        self.calls[layer_name] = number + 1
        if number:
            return self._unique(f"{layer_name}/{number}")
        return layer_name if layer_name in self.used else self._unique(layer_name)

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.used:
            name, number = f"{wanted}_{number}", number + 1
        self.used.add(name)
        return name


def _trace(model: keras.Model, node: Any) -> keras.Model:
    """A subclassed model as a functional one, by calling its ``call`` on symbolic inputs."""
    specs = _input_specs(model, node)
    inputs = tree.map_structure(lambda spec: keras.Input(batch_shape=spec.shape, dtype=spec.dtype), specs)
    try:
        outputs = model.call(inputs)
    except (TypeError, ValueError, AttributeError) as error:
        raise TfqatError(
            f"Model {model.name!r} ({type(model).__name__}) cannot be seen as a graph: its call() failed on symbolic "
            f"inputs ({error}). It must use Keras layers and keras.ops only."
        ) from error
    return keras.Model(inputs, outputs, name=model.name)


def _input_specs(model: keras.Model, node: Any) -> Any:
    """A nest of KerasTensors like the model's inputs."""
    if node is not None:
        return node.arguments.args[0]
    shapes = model._build_shapes_dict or {} if model.built else {}
    if len(shapes) != 1:
        raise TfqatError(
            f"Model {model.name!r} ({type(model).__name__}) has no known input shape: call it on a batch, or "
            "model.build(shape), first. A subclassed model must take one argument (a tensor or a nest of tensors)."
        )
    # Built by a call on one batch, it knows that batch's size, which is nobody's wish.
    spec = lambda shape: keras.KerasTensor((None, *shape[1:]), "float32")  # noqa: E731
    return tree.map_shape_structure(spec, next(iter(shapes.values())))


def _nodes_in_order(function: Any) -> Iterator[Any]:
    """The nodes of a functional model, producers first, each branch as deep as it goes; without recursion."""
    known = {node for nodes in function._nodes_by_depth.values() for node in nodes}
    entry = {id(tensor) for tensor in function.inputs}
    done: set[Any] = set()
    for output in tree.flatten(function._outputs_struct):
        stack = [] if id(output) in entry else [(_node_of(output), False)]
        while stack:
            node, ready = stack.pop()
            if node in done or node.is_input or node not in known:
                continue
            if ready:
                done.add(node)
                yield node
                continue
            stack.append((node, True))
            parents = [_node_of(t) for t in node.arguments.keras_tensors if id(t) not in entry]
            stack.extend((parent, False) for parent in reversed(parents))


def _node_of(tensor: keras.KerasTensor) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _with_refs(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments with Refs for its tensors, numbered in the order of ``keras_tensors``."""
    order = iter(range(len(node.arguments.keras_tensors)))
    place = lambda leaf: Ref(next(order)) if isinstance(leaf, keras.KerasTensor) else leaf  # noqa: E731
    args, kwargs = tree.map_structure(place, (node.arguments.args, node.arguments.kwargs))
    return tuple(args), dict(kwargs)


def _numbered(structure: Any) -> Any:
    order = iter(range(len(tree.flatten(structure))))
    return tree.map_structure(lambda _: Ref(next(order)), structure)


def _config(operation: Any) -> dict[str, Any]:
    """The constructor config, or {} where the operation gives none (it is then used as it stands)."""
    try:
        return {key: value for key, value in operation.get_config().items() if key != "name"}
    except NotImplementedError:
        return {}


def _clean(name: str) -> str:
    """The name in ASCII, without the characters that split a cache line or a trtexec list."""
    return re.sub(r"[^A-Za-z0-9_./\-]", "_", name) or "_"
