"""Trace: what a ``call`` computes, seen as layers and operations, by running it on symbolic tensors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from tfqat.graph.kinds import snake_case
from tfqat.view.attention_calls import by_layers
from tfqat.view.custom import is_own
from tfqat.view.repeat_batch import RepeatBatch
from tfqat.view.trace_error import IN_ONE_GRAPH, TraceError, explain, place_in_call

# Attributes by which Keras and TensorFlow keep book of a layer's variables; ``call`` reads none of them.
_BOOKS = re.compile("_self_.*|_tracker|_trainable_variables|_non_trainable_variables|_layers|_metrics|_seed_generators")


# Stands for the batch's size in a trace whose call() reckons with it; a prime, so that products with it are known.
BATCH = 1013


@dataclass(frozen=True)
class Way:
    """How to run a ``call``: with which size in place of an unknown batch, and whether constants that the layer keeps
    as attributes, or calls layers inside on (positions, for an Embedding), are symbolic tensors, too."""

    batch: int | None = None
    constants: bool = False


# Ways to try, the plainest first.
WAYS = (Way(), Way(BATCH), Way(constants=True), Way(BATCH, constants=True))


@dataclass(frozen=True, eq=False)
class Trace:
    """One call of a layer or a model on symbolic tensors.

    Attributes:
        given: the tensors that it was called with, its masks included.
        inputs: what the trace reads in their place.
        weights: pairs of a symbolic tensor and the variable of its own that it stands for.
        outputs: a nest of tensors.
        arguments: the call's, bound to its signature, with the tensors of ``inputs``.
        frozen: ids of the nodes that are called with ``training=False`` whatever the caller says.
    """

    given: tuple[Any, ...]
    inputs: tuple[Any, ...]
    weights: tuple[tuple[Any, Any], ...]
    outputs: Any
    arguments: inspect.BoundArguments
    frozen: frozenset[int] = frozenset()

    @property
    def nodes(self) -> list[Any]:
        """The calls inside, producers first."""
        return list(nodes_in_order([*self.inputs, *(stand_in for stand_in, _ in self.weights)], self.outputs))


def run(
    layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any], training: bool, way: Way = WAYS[0]
) -> Trace:
    """The layer's ``call`` on stand-ins for its variables and for the symbolic tensors among its arguments.

    Raises:
        TraceError: it does not run on symbolic tensors; says where it stopped, and what to change there.
    """
    bound = _bound(layer, args, kwargs, training)
    stand_ins = _StandIns(layer, way)
    bound.arguments.update(tree.map_structure(stand_ins.of_tensor, dict(bound.arguments)))
    with (
        _variables_replaced(layer, stand_ins),
        _calls_replaced(layer, stand_ins, training),
        _calling(layer, training),
        _known_sizes(),
        _arrays_give_way(),
        _activations_take_symbols(),
        by_layers(layer),
    ):
        try:
            outputs = layer.call(*bound.args, **bound.kwargs)
        except Exception as error:
            raise explain(layer, error) from error
    if not tree.flatten(outputs) or not all(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten(outputs)):
        raise TraceError(
            "its call() returns something besides tensors that depend on its inputs, at "
            f"{place_in_call(layer, 'return')}. Let it return such tensors alone"
        )
    given, inputs = zip(*stand_ins.tensors.values(), strict=True)
    found = Trace(given, inputs, tuple(stand_ins.weights.values()), outputs, bound)
    _check_functions(found, layer)
    _check_batch(found, layer)
    for node in found.nodes:
        _settle(node, inputs[0])
    return found


def _check_functions(found: Trace, layer: keras.layers.Layer) -> None:
    """Raises TraceError where an operation is given functions: what they read past their arguments is in no graph."""
    for node in found.nodes:
        if isinstance(node.operation, keras.layers.Layer):
            continue
        held = [*node.arguments._flat_arguments, *vars(node.operation).values()]
        if any(inspect.isroutine(leaf) or isinstance(leaf, partial) for leaf in held):
            name = snake_case(type(node.operation).__name__)
            raise TraceError(
                f"its call() gives functions to keras.ops.{name}, at {place_in_call(layer, rf'[.]{name}[(]')}, which "
                f"is in no graph. {IN_ONE_GRAPH}"
            )


def _check_batch(found: Trace, layer: keras.layers.Layer) -> None:
    """Raises TraceError where a size of the layer's own could be taken for the batch's."""
    own = [size for tensor in found.inputs for size in tensor.shape[1:]]
    own += [size for variable in layer.variables for size in variable.shape]
    if is_batched(found.inputs) and any(size and size % BATCH == 0 for size in own):
        raise TraceError(f"its call() reckons with the batch's size, and it has a size that is a multiple of {BATCH}")


def is_batched(tensors: Sequence[Any]) -> bool:
    """Whether BATCH stands for the size of a batch in a trace that reads these tensors."""
    return any(tensor.shape[:1] == (BATCH,) for tensor in tensors)


def without_batch(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """A shape with None for the sizes that BATCH has a part in."""
    return tuple(None if size and size % BATCH == 0 else size for size in shape)


def _settle(node: Any, like: Any) -> None:
    """Puts right what an operation that was called on symbolic tensors could not do on values."""
    operation = node.operation
    if isinstance(operation, keras.layers.Layer):
        return
    if is_batched([like]):
        node.arguments = _of_one_image(node.arguments)
    if getattr(operation, "data_format", "") is None:
        # Keras sets the default where an operation is called on values, and forgets it here.
        operation.data_format = keras.config.image_data_format()
    what, before, after = type(operation).__name__, node.arguments.keras_tensors[0], node.outputs[0]
    shape = without_batch(after.shape) if is_batched([like]) else after.shape
    if what == "Reshape" and shape[0] is None and before.shape[0] == after.shape[0]:
        # The batch's size, taken from a tensor: the layer keeps the batch whatever its size.
        asked = operation.newshape
        if isinstance(asked, list | tuple) and asked[0] != -1:
            sizes = asked[1:] if -1 in asked[1:] else shape[1:]
            node.operation = keras.layers.Reshape([-1 if s is None else s for s in sizes], name="reshape")
    elif what == "Reshape" and shape.count(None) == 1 and None not in after.shape:
        operation.newshape = tuple(-1 if size is None else size for size in shape)
    elif what in ("Tile", "BroadcastTo", "Repeat") and after.shape[0] == BATCH and before.shape[0] != BATCH:
        node.operation = RepeatBatch(tuple(shape[1:]), name="repeat_batch")
        node.arguments = type(node.arguments)([like, before])


def _of_one_image(arguments: Any) -> Any:
    """A call's arguments with the first row of a constant that repeats it for each image, as some causal masks do."""

    def first(leaf: Any) -> Any:
        if not keras.ops.is_tensor(leaf) or leaf.shape[:1] != (BATCH,):
            return leaf
        rows = keras.ops.convert_to_numpy(leaf)
        return keras.ops.convert_to_tensor(rows[:1]) if (rows == rows[:1]).all() else leaf

    changed = tree.map_structure(first, (arguments.args, arguments.kwargs))
    return type(arguments)(*changed[0], **changed[1])


def nodes_in_order(inputs: Any, outputs: Any) -> Iterator[Any]:
    """The nodes between some tensors and others, producers first, each branch as deep as it goes; no recursion.

    A node that its own result leads to (keras.ops.cond gives out what a branch gave it) is met once.
    """
    entry = {id(tensor) for tensor in tree.flatten(inputs)}
    done: set[Any] = set()
    begun: set[Any] = set()
    for output in tree.flatten(outputs):
        stack = [] if id(output) in entry else [(node_of(output), False)]
        while stack:
            node, ready = stack.pop()
            if node in done or node.is_input:
                continue
            if ready:
                done.add(node)
                yield node
                continue
            if node in begun:
                continue
            begun.add(node)
            stack.append((node, True))
            parents = [node_of(t) for t in node.arguments.keras_tensors if id(t) not in entry]
            stack.extend((parent, False) for parent in reversed(parents))


def node_of(tensor: keras.KerasTensor) -> Any:
    """The call that computed a symbolic tensor."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        raise TraceError(f"its call() reads a symbolic tensor of shape {tuple(tensor.shape)} that it was not given")
    return history.operation._inbound_nodes[history.node_index]


def mask_of(tensor: Any) -> Any:
    """The mask that travels with a symbolic tensor, None where there is none."""
    return getattr(tensor, "_keras_mask", None)


def mask_places(layer: keras.layers.Layer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Argument of ``call`` -> the tensors whose masks Keras fills in there, where the caller gives none."""
    parameters = layer._call_signature.parameters
    tensors = {
        name: value
        for name, value in arguments.items()
        if any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten(value))
    }
    if len(tensors) == 1:
        places = {"mask": next(iter(tensors.values()))}
    else:
        places = {f"{name}_mask": value for name, value in tensors.items()}
    return {name: value for name, value in places.items() if name in parameters and arguments.get(name) is None}


class _StandIn(keras.KerasTensor):
    """A symbolic tensor that takes ``x[:n]`` as arrays do; Keras' own wants ``x[:n, ...]``."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((key,) if isinstance(key, slice) else key)


class _StandIns:
    """Symbolic tensors in place of those of a call and of the variables of the called layer."""

    def __init__(self, layer: keras.layers.Layer, way: Way) -> None:
        self.way = way
        # Keras casts what a layer is called with; a model leaves that to its layers.
        self.dtype = layer.compute_dtype if layer._convert_input_args and layer.autocast else None
        self.compute_dtype = layer.compute_dtype
        self.tensors: dict[int, tuple[Any, Any]] = {}
        self.weights: dict[int, tuple[Any, Any]] = {}

    def of_tensor(self, leaf: Any) -> Any:
        if not isinstance(leaf, keras.KerasTensor):
            return leaf
        if id(leaf) not in self.tensors:
            dtype = self.dtype if self.dtype and keras.backend.is_float_dtype(leaf.dtype) else leaf.dtype
            shape = (self.way.batch, *leaf.shape[1:]) if leaf.shape and leaf.shape[0] is None else leaf.shape
            self.tensors[id(leaf)] = (leaf, _StandIn(shape, dtype))
        new = self.tensors[id(leaf)][1]
        if mask_of(leaf) is not None and mask_of(new) is None:
            new._keras_mask = self.of_tensor(mask_of(leaf))
        return new

    def is_weight(self, leaf: Any) -> bool:
        """Whether what a layer keeps as an attribute gets a stand-in."""
        return isinstance(leaf, keras.Variable) or (self.way.constants and keras.ops.is_tensor(leaf))

    def of_weight(self, leaf: Any) -> Any:
        if not self.is_weight(leaf):
            return leaf
        if id(leaf) not in self.weights:
            variable = (
                leaf if isinstance(leaf, keras.Variable) else keras.Variable(leaf, trainable=False, dtype=leaf.dtype)
            )
            floating = keras.backend.is_float_dtype(variable.dtype)
            dtype = self.compute_dtype if floating and self.compute_dtype else variable.dtype
            self.weights[id(leaf)] = (_StandIn(tuple(leaf.shape), dtype), variable)
        return self.weights[id(leaf)][0]

    def of_constant(self, leaf: Any) -> Any:
        if not keras.ops.is_tensor(leaf) and not isinstance(leaf, np.ndarray):
            return leaf
        value = keras.ops.convert_to_tensor(leaf)
        variable = keras.Variable(value, trainable=False, dtype=value.dtype, name="constant")
        return self.of_weight(variable)


def _bound(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], training: bool) -> inspect.BoundArguments:
    """The call's arguments by name, with ``training`` and the masks that Keras would fill in."""
    given = {key: value for key, value in kwargs.items() if key != "training"}
    bound = layer._call_signature.bind(*args, **given)
    if "training" in layer._call_signature.parameters:
        bound.arguments["training"] = training
    masks = {name: tree.map_structure(mask_of, value) for name, value in mask_places(layer, bound.arguments).items()}
    found = {name: mask for name, mask in masks.items() if any(leaf is not None for leaf in tree.flatten(mask))}
    bound.arguments.update(found)
    return bound


@contextmanager
def _variables_replaced(layer: keras.layers.Layer, stand_ins: _StandIns) -> Iterator[None]:
    """The layer's own variables as symbolic tensors, so that what is done to them is seen, too."""
    attributes = vars(layer)
    kept = {
        name: value
        for name, value in attributes.items()
        if not _BOOKS.fullmatch(name) and any(map(stand_ins.is_weight, _leaves(value)))
    }
    attributes.update({name: _mapped(stand_ins.of_weight, value) for name, value in kept.items()})
    try:
        yield
    finally:
        attributes.update(kept)


def _leaves(value: Any) -> Iterator[Any]:
    """The leaves of an attribute; keras.tree would sort the keys of its dictionaries, which may be anything."""
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    else:
        yield value


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """An attribute with ``function`` of its leaves."""
    if isinstance(value, Mapping):
        return {key: _mapped(function, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return function(value)


@contextmanager
def _calls_replaced(layer: keras.layers.Layer, stand_ins: _StandIns, training: bool) -> Iterator[None]:
    """Layers inside are called as Keras cannot: on constants as if on tensors, and right through.

    Called on constants alone, a layer would hide its weights. Keras knows no symbolic result of a layer that gives
    None beside tensors, or has another signature than its ``compute_output_spec``: what it does is seen as part of
    the call.
    """
    stock = keras.layers.Layer.__call__
    inside = {id(sub): sub for sub in layer._flatten_layers(include_self=False)}

    def call(sub: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten((args, kwargs)))
        if stand_ins.way.constants and not symbolic and id(sub) in inside and sub.weights:
            args, kwargs = tree.map_structure(stand_ins.of_constant, (args, kwargs))
        try:
            return stock(sub, *args, **kwargs)
        except Exception as error:
            if not symbolic or id(sub) not in inside or is_own(type(sub)):
                raise
            return _called_through(sub, args, kwargs, stand_ins, training, error)

    keras.layers.Layer.__call__ = call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = stock


def _called_through(
    sub: Any, args: Any, kwargs: dict[str, Any], stand_ins: _StandIns, training: bool, error: Exception
) -> Any:
    """What a layer inside gives, its calls and operations noted as those of the layer around it."""
    bound = sub._call_signature.bind(*args, **kwargs)
    if "training" in sub._call_signature.parameters and bound.arguments.get("training") is None:
        bound.arguments["training"] = training
    with _variables_replaced(sub, stand_ins):
        try:
            return sub.call(*bound.args, **bound.kwargs)
        except Exception:  # noqa: BLE001 - what Keras had to say of the call is what counts
            raise error from None


@contextmanager
def _calling(layer: keras.layers.Layer, training: bool) -> Iterator[None]:
    """The state in which layers find ``training`` where their caller does not say."""
    layer._get_call_context().set_value("training", training)
    try:
        yield
    finally:
        layer._maybe_reset_call_context()


@contextmanager
def _known_sizes() -> Iterator[None]:
    """EinsumDense calls sizes unknown that its input has: an attention layer could not make its causal mask."""
    stock = keras.layers.EinsumDense.compute_output_shape

    def shape_of(layer: Any, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        found = stock(layer, input_shape)
        if "..." in layer.equation:
            return found
        given, output = (layer.equation.split(",")[0].strip(), layer.equation.split("->")[1].strip())
        sizes = dict(zip(given, input_shape, strict=True))
        return tuple(sizes.get(letter) if size is None else size for letter, size in zip(output, found, strict=True))

    keras.layers.EinsumDense.compute_output_shape = shape_of
    try:
        yield
    finally:
        keras.layers.EinsumDense.compute_output_shape = stock


@contextmanager
def _arrays_give_way() -> Iterator[None]:
    """``np.sqrt(2) * x`` as ``x * np.sqrt(2)``, as with a tensor of values: NumPy leaves it to the tensor."""
    keras.KerasTensor.__array_ufunc__ = None
    try:
        yield
    finally:
        del keras.KerasTensor.__array_ufunc__


@contextmanager
def _activations_take_symbols() -> Iterator[None]:
    """Some of keras.activations make a tensor of values first, which a symbol never is; mish has no operation."""
    own = keras.activations.mish.__globals__
    backend, mish = own["backend"], own["Mish"]
    to_tensor, of_values = backend.convert_to_tensor, mish.static_call

    def convert(x: Any, *args: Any, **kwargs: Any) -> Any:
        return x if isinstance(x, keras.KerasTensor) else to_tensor(x, *args, **kwargs)

    def of_any(x: Any) -> Any:
        symbolic = isinstance(x, keras.KerasTensor)
        return keras.layers.Activation("mish", dtype=x.dtype, name="mish")(x) if symbolic else of_values(x)

    backend.convert_to_tensor, mish.static_call = convert, staticmethod(of_any)
    try:
        yield
    finally:
        backend.convert_to_tensor, mish.static_call = to_tensor, staticmethod(of_values)


def is_auto_named(operation: Any) -> bool:
    """Whether Keras made the name, with a number from its global counters."""
    return re.fullmatch(rf"{re.escape(snake_case(type(operation).__name__))}(_\d+)?", operation.name) is not None


def local_names(layer: keras.layers.Layer) -> dict[int, str]:
    """Id of a layer inside -> its name with a number of the layer's own in place of Keras' global one."""
    inner = [sub for sub in layer._flatten_layers(include_self=False) if is_auto_named(sub)]
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for sub in sorted(inner, key=_auto_number):
        stem = snake_case(type(sub).__name__)
        counts[stem] = counts.get(stem, -1) + 1
        names[id(sub)] = f"{stem}_{counts[stem]}" if counts[stem] else stem
    return names


def _auto_number(layer: keras.layers.Layer) -> int:
    number = layer.name.removeprefix(snake_case(type(layer).__name__)).lstrip("_")
    return int(number) if number else 0
