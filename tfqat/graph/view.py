"""View: a Keras model seen as a Graph, with nested models and composite layers inlined."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from tfqat.errors import TfqatError
from tfqat.graph.attention import with_products
from tfqat.graph.custom import is_composite, is_own, is_registered, needs_proof, stock_class, why_whole
from tfqat.graph.function import Function, called, function_of
from tfqat.graph.graph import Graph, Op, Ref, Source
from tfqat.graph.kinds import IDENTITY, kind_of, snake_case
from tfqat.graph.part import Part
from tfqat.graph.parts import parts_of
from tfqat.graph.proof import check_variables, trace
from tfqat.graph.trace import (
    Trace,
    is_auto_named,
    is_batched,
    local_names,
    mask_places,
    node_of,
    nodes_in_order,
    without_batch,
)
from tfqat.graph.trace_error import TraceError
from tfqat.graph.weighted import Weighted, weighted_calls
from tfqat.graph.with_weights import WithWeights

# Keras forbids '/' in the names of layers; a nested op's layer has this in its place. It is valid in TensorFlow's
# name scopes and hardly ever part of a user's name.
NESTING = ">"


def view(model: keras.Model, input_names: Sequence[str] = ()) -> Graph:
    """The model as a Graph; the model itself is only read.

    Sequential, nested and subclassed models are inlined, and so are layers made of other layers: their ``call`` is
    run on symbolic inputs. Fused activations and separable convolutions are split.

    Args:
        model: the Keras model.
        input_names: names for its inputs, flat, in place of those that it gives.

    Raises:
        TfqatError: the model has no known input shape, or a subclassed ``call`` cannot run on symbolic tensors.
    """
    return with_products(_Viewer().view(model, input_names))


def layer_name_of(op_layer_name: str) -> str:
    """The Keras layer name under which an op's layer stands in a flat model."""
    return op_layer_name.replace("/", NESTING)


@dataclass(frozen=True)
class _Scope:
    """Where an op stands.

    Attributes:
        prefix: the path before its name.
        traced: whether operations get names of their own in place of Keras' global numbers.
        names: the names of layers that a traced layer numbers itself, by id.
        frozen: whether layers are called with ``training=False`` whatever the caller says.
    """

    prefix: str = ""
    traced: bool = False
    names: dict[int, str] = field(default_factory=dict)
    frozen: bool = False

    def name_of(self, operation: Any) -> str:
        """The path of an op called here."""
        name = self.names.get(id(operation), operation.name)
        if self.traced and not isinstance(operation, keras.layers.Layer) and is_auto_named(operation):
            name = snake_case(type(operation).__name__)
        return f"{self.prefix}{_clean(name.replace(NESTING, '/'))}"


@dataclass(frozen=True, eq=False)
class _Mask:
    """A mask that travels with a tensor: computed in the graph only where an op reads it."""

    tensor: Any
    names: dict[int, Any]
    scope: _Scope


# Id of a symbolic tensor -> its name in the graph, or the mask that it is.
_Names = dict[int, Any]


class _Viewer:
    """The state of one viewing: names in use, ops found so far."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.alive: list[Any] = []  # ops and tensors are told apart by id
        self.calls: dict[str, int] = {}
        self.used: set[str] = set()
        self.layer_names: dict[Any, str] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.masks: dict[str, _Mask] = {}
        self.batched = False  # whether the ops that are added are of a trace with a stand-in for the batch's size
        self.holders: dict[int, Any] = {}  # id of a variable -> key of the layer that holds it

    def view(self, model: keras.Model, input_names: Sequence[str] = ()) -> Graph:
        function = function_of(model)
        wanted = input_names or function.names or [t._keras_history.operation.name for t in function.inputs]
        pairs = zip(function.inputs, wanted, strict=True)
        names: _Names = {id(tensor): self._input_name(tensor, name) for tensor, name in pairs}
        inputs = tuple(names[id(tensor)] for tensor in function.inputs)
        outputs = self._inline_function(function, names, _Scope())
        ops = _needed(self.ops, outputs)
        tensors = {*inputs, *(tensor for op in ops for tensor in op.outputs)}
        return Graph(
            name=model.name,
            ops=ops,
            inputs=inputs,
            outputs=tuple(outputs),
            shapes={tensor: shape for tensor, shape in self.shapes.items() if tensor in tensors},
            dtypes={tensor: dtype for tensor, dtype in self.dtypes.items() if tensor in tensors},
            input_structure=_numbered(function.inputs_struct),
            output_structure=_numbered(function.outputs),
        )

    def _input_name(self, tensor: keras.KerasTensor, wanted: str) -> str:
        name = self._unique(_clean(wanted))
        self.shapes[name], self.dtypes[name] = tuple(tensor.shape), str(tensor.dtype)
        return name

    def _inline_function(self, function: Function, names: _Names, scope: _Scope) -> list[str]:
        """Appends the ops of a model; ``names`` maps ids of its input tensors to the outer names."""
        self.alive.append(function)
        if function.trace is None:
            return self._inline(function.inputs, function.outputs, names, scope)
        return self._inline_trace(function.trace, function.model, names, replace(scope, traced=True))

    def _inline(self, inputs: Any, outputs: Any, names: _Names, scope: _Scope) -> list[str]:
        """Appends the ops between some tensors and others."""
        for node in nodes_in_order(inputs, outputs):
            if id(node.outputs[0]) not in names:
                self._name_results(node.outputs, self._call(node, names, scope), names)
        return [self._named(tensor, names, scope) for tensor in tree.flatten(outputs)]

    def _inline_trace(self, found: Trace, layer: Any, names: _Names, scope: _Scope) -> list[str]:
        """Appends what a trace has found; ``names`` maps ids of its input tensors to the outer names."""
        before, self.batched = self.batched, self.batched or is_batched(found.inputs)
        results = self._inline_calls(found, layer, names, scope)
        self.batched = before
        return results

    def _inline_calls(self, found: Trace, layer: Any, names: _Names, scope: _Scope) -> list[str]:
        alone, held = weighted_calls(layer, found)
        for call in alone:
            self._name_results(call.results, self._add_weighted(call, names, scope), names)
        for node in found.nodes:
            if id(node.outputs[0]) in names or held.get(id(node), node) is None:
                continue
            inside = replace(scope, frozen=scope.frozen or id(node) in found.frozen)
            weighted = held.get(id(node))
            if weighted is None:
                self._name_results(node.outputs, self._call(node, names, inside), names)
            else:
                self._name_results(weighted.results, self._add_weighted(weighted, names, inside), names)
        return [self._named(tensor, names, scope) for tensor in tree.flatten(found.outputs)]

    def _name_results(self, tensors: Iterable[Any], results: list[str], names: _Names) -> None:
        names.update(zip((id(tensor) for tensor in tensors), results, strict=True))

    def _call(self, node: Any, names: _Names, scope: _Scope) -> list[str]:
        """Appends what one call amounts to; the names of its results."""
        operation = node.operation
        if isinstance(operation, keras.Model):
            return self._inline_model(node, names, scope)
        inside = self._look_inside(node, names, scope) if is_composite(operation) else why_whole(operation)
        results = inside if isinstance(inside, list) else self._add(node, names, scope, inside)
        if isinstance(operation, keras.layers.Layer):
            self._mask_results(node, results, names, scope)
        return results

    def _inline_model(self, node: Any, names: _Names, scope: _Scope) -> list[str]:
        args, kwargs = self._carried(_arguments(node), names, scope)
        function, given = called(node.operation, args, kwargs)
        pairs = zip(function.inputs, given, strict=True)
        inner: _Names = {id(tensor): self._named(outer, names, scope) for tensor, outer in pairs}
        return self._inline_function(function, inner, replace(scope, prefix=f"{scope.name_of(node.operation)}/"))

    def _look_inside(self, node: Any, names: _Names, scope: _Scope) -> list[str] | str:
        """Appends what a composite layer is made of; or why that cannot be seen."""
        layer = node.operation
        args, kwargs = self._carried(_arguments(node), names, scope)
        try:
            found = trace(layer, args, kwargs, needs_proof(layer))
            check_variables(layer, found)
            weighted_calls(layer, found)
        except TraceError as error:
            if is_registered(layer):
                raise TfqatError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) is decorated with @tfqat.quantizable, but {error}"
                ) from error
            return f"not seen inside: {error}"
        self.alive.append(found)
        pairs = zip(found.inputs, found.given, strict=True)
        inner: _Names = {id(tensor): self._named(outer, names, scope) for tensor, outer in pairs}
        path = f"{scope.name_of(layer)}/"
        return self._inline_trace(
            found, layer, inner, _Scope(path, True, scope.names | local_names(layer), scope.frozen)
        )

    def _named(self, tensor: Any, names: _Names, scope: _Scope) -> str:
        """The name of a tensor; what Keras computes beside the graph, as masks, is computed in it first."""
        if id(tensor) not in names:
            self._inline(_ancestors(tensor, names), tensor, names, replace(scope, traced=True))
        name = names[id(tensor)]
        if isinstance(name, _Mask):
            name = names[id(tensor)] = self._named(name.tensor, name.names, name.scope)
        return name

    def _carried(self, nest: Any, names: _Names, scope: _Scope) -> Any:
        """A nest of arguments with tensors of its own, which carry the masks that their values will carry."""

        def carry(leaf: Any) -> Any:
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            fresh = keras.KerasTensor(leaf.shape, leaf.dtype)
            self.alive.append(fresh)
            names[id(fresh)] = self._named(leaf, names, scope)
            mask = self._mask_of(leaf, names)
            if mask is not None:
                fresh._keras_mask = mask
            return fresh

        return tree.map_structure(carry, nest)

    def _mask_of(self, tensor: Any, names: _Names) -> Any:
        """A symbolic tensor for the mask that travels with another, None where there is none."""
        mask = self.masks.get(names.get(id(tensor), "")) if isinstance(tensor, keras.KerasTensor) else None
        if mask is None:
            return None
        stand_in = keras.KerasTensor(mask.tensor.shape, "bool")
        self.alive.append(stand_in)
        names[id(stand_in)] = mask
        return stand_in

    def _mask_results(self, node: Any, results: list[str], names: _Names, scope: _Scope) -> None:
        """Gives the results the masks that the layer passes on, as Keras does."""
        layer = node.operation
        masks = self._passed_on(node, names) if layer.supports_masking else []
        if isinstance(layer, keras.layers.MultiHeadAttention):
            # It takes the masks off what it reads, so that no layer behind it sees them.
            for tensor in node.arguments.keras_tensors:
                self.masks.pop(self._named(tensor, names, scope), None)
        inside = replace(scope, prefix=f"{scope.name_of(layer)}/")
        for result, mask in zip(results, masks, strict=False):
            if isinstance(mask, keras.KerasTensor) and result not in self.masks:
                known = names.get(id(mask))
                self.masks[result] = known if isinstance(known, _Mask) else _Mask(mask, names, inside)

    def _passed_on(self, node: Any, names: _Names) -> list[Any]:
        """The masks that a layer computes for its results, as symbolic tensors."""
        args, kwargs = node.arguments.args, node.arguments.kwargs
        first = args[0] if args else next(iter(kwargs.values()))
        given = kwargs.get("mask")
        previous = given if given is not None else tree.map_structure(lambda leaf: self._mask_of(leaf, names), first)
        compute = node.operation.compute_mask
        if getattr(compute, "_is_default", False) and all(leaf is None for leaf in tree.flatten(previous)):
            return []
        return tree.flatten(compute(first, previous))

    def _mask_arguments(self, layer: Any, args: Any, kwargs: dict[str, Any], names: _Names) -> dict[str, Any]:
        """The mask arguments that Keras fills in from the masks that travel with tensors."""
        places = mask_places(layer, layer._call_signature.bind(*args, **kwargs).arguments)
        masks = {
            place: tree.map_structure(lambda leaf: self._mask_of(leaf, names), nest) for place, nest in places.items()
        }
        return {place: mask for place, mask in masks.items() if any(leaf is not None for leaf in tree.flatten(mask))}

    def _add(self, node: Any, names: _Names, scope: _Scope, reason: str = "") -> list[str]:
        args, kwargs = _arguments(node)
        if self.masks and isinstance(node.operation, keras.layers.Layer):
            kwargs = {**kwargs, **self._mask_arguments(node.operation, args, kwargs, names)}
        tensors = [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
        inputs = [self._named(tensor, names, scope) for tensor in tensors]
        whole = self._whole(node.operation, inputs, _with_refs(args, kwargs), scope, reason)
        if scope.frozen and _is_frozen_away(whole):
            return inputs[:1]
        return self._append_parts(_frozen(whole) if scope.frozen else whole, node.outputs)

    def _add_weighted(self, call: Weighted, names: _Names, scope: _Scope) -> list[str]:
        inputs = [self._named(tensor, names, scope) for tensor in call.reads]
        for variable in call.source.values:
            if self.holders.setdefault(id(variable), call.source.key) != call.source.key:
                raise TfqatError(
                    f"{scope.prefix}{call.name}: a variable of this layer is used in different ways by different calls "
                    "of it. Use it in one way, or make two layers."
                )
        base = self._base(call.source.key, f"{scope.prefix}{call.name}")
        whole = Op(base, base, call.kind, tuple(inputs), (base,), call.source, call.args)
        return self._append_parts(whole, call.results)

    def _whole(self, operation: Any, inputs: list[str], arguments: Any, scope: _Scope, reason: str) -> Op:
        """The call as one op, before it is split into parts and numbered."""
        args, kwargs = arguments
        cls = stock_class(operation)
        config = _config(operation, cls)
        base = self._base(id(operation), scope.name_of(operation))
        values = tuple(operation.weights) if isinstance(operation, keras.layers.Layer) else ()
        source = Source(cls, config, values, id(operation), operation)
        kind = (
            kind_of(cls.__name__, config | kwargs, len(inputs)) if is_own(cls) else f"custom_{snake_case(cls.__name__)}"
        )
        kind = config["kind"] if cls is WithWeights else kind
        return Op(base, base, kind, tuple(inputs), (base,), source, args, kwargs, reason)

    def _append_parts(self, whole: Op, results: Iterable[keras.KerasTensor]) -> list[str]:
        shapes = [self.shapes[name] for name in whole.inputs]
        pieces: list[Op] = []
        for part in parts_of(whole, shapes):
            reads = (pieces[index].outputs[0] if index < 0 else whole.inputs[index] for index in part.reads)
            pieces.append(self._append(part, tuple(reads), list(results)))
        return list(pieces[-1].outputs)

    def _base(self, key: Any, wanted: str) -> str:
        if key not in self.layer_names:
            self.layer_names[key] = self._unique(wanted)
        return self.layer_names[key]

    def _append(self, part: Part, inputs: tuple[str, ...], results: list[keras.KerasTensor]) -> Op:
        name = self._call_name(part.op.layer_name)
        outputs = (name, *(f"{name}/out{i}" for i in range(1, len(results))))
        op = replace(part.op, name=name, inputs=inputs, outputs=outputs)
        for output, tensor in zip(outputs, results, strict=True):
            shape = tuple(tensor.shape) if part.shape is None else part.shape
            shape = without_batch(shape) if self.batched else shape
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


def _arguments(node: Any) -> tuple[Any, dict[str, Any]]:
    """What the layer was called with: Keras adds ``training``, and masks where there are none, to some calls."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    if not kwargs or not isinstance(node.operation, keras.layers.Layer):
        return args, kwargs

    def is_added(name: str, value: Any) -> bool:
        if name == "training":
            return not value
        return name.endswith("mask") and all(leaf is None for leaf in tree.flatten(value))

    return args, {name: value for name, value in kwargs.items() if not is_added(name, value)}


def _ancestors(tensor: Any, names: _Names) -> list[Any]:
    """The tensors with a name that one without is computed from."""
    found: list[Any] = []
    stack = [tensor]
    while stack:
        for parent in node_of(stack.pop()).arguments.keras_tensors:
            (found if id(parent) in names else stack).append(parent)
    return found


def _needed(ops: list[Op], outputs: Iterable[str]) -> tuple[Op, ...]:
    """The ops without those that no output depends on: masks that nobody reads."""
    needed, kept = set(outputs), []
    for op in reversed(ops):
        if not needed.isdisjoint(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    return tuple(reversed(kept))


def _is_frozen_away(op: Op) -> bool:
    """Whether an op that is always called with ``training=False`` does nothing.

    Raises:
        TfqatError: it does something that a flat model, whose layers are told, cannot be kept from in training.
    """
    if op.kind in IDENTITY:
        return len(op.inputs) == 1
    built = op.source.built
    drops = any(getattr(built, name, None) for name in ("dropout", "recurrent_dropout"))
    told = getattr(built, "_call_has_training_arg", False) and not is_own(op.source.cls)
    if (drops or told) and op.kind != "batch_normalization":
        raise TfqatError(
            f"Layer {op.name!r} ({op.source.cls.__name__}) is called with training=False inside of a call(); tfqat can "
            "keep that for BatchNormalization and Dropout only. Set its dropout to 0, or pass training on."
        )
    return False


def _frozen(op: Op) -> Op:
    """A BatchNormalization with the switch on that tfqat's own has as its last weight, and stops its statistics."""
    if op.kind != "batch_normalization" or op.source.cls is not keras.layers.BatchNormalization:
        return op
    return replace(op, source=replace(op.source, values=(*op.source.values, np.float32(1.0))))


def _with_refs(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments with Refs for its tensors, in their order, and constants as arrays."""
    order = iter(range(len(tree.flatten((args, kwargs)))))

    def place(leaf: Any) -> Any:
        if isinstance(leaf, keras.KerasTensor):
            return Ref(next(order))
        return _constant(leaf)

    args, kwargs = tree.map_structure(place, (args, kwargs))
    return tuple(args), dict(kwargs)


def _constant(leaf: Any) -> Any:
    """A constant among a call's arguments as plain data, in a precision that devices have.

    NumPy gives double precision by itself (``/ np.sqrt(8)``), and half precision is what a policy made of a number: a
    single number of either leaves its type to the tensors beside it.
    """
    if isinstance(leaf, keras.Variable) or keras.ops.is_tensor(leaf):
        half = keras.backend.standardize_dtype(leaf.dtype) in ("float16", "bfloat16")
        leaf = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(leaf, "float32") if half else leaf))
        return float(leaf) if half and not leaf.shape else _constant(leaf)
    if isinstance(leaf, np.float64):
        return float(leaf)
    return leaf.astype(np.float32) if isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 else leaf


def _numbered(structure: Any) -> Any:
    order = iter(range(len(tree.flatten(structure))))
    return tree.map_structure(lambda _: Ref(next(order)), structure)


def _config(operation: Any, cls: Any) -> dict[str, Any]:
    """The constructor config, or {} where the operation gives none (it is then used as it stands)."""
    try:
        given = operation.get_config() if cls is type(operation) else cls.get_config(operation)
        return {key: value for key, value in given.items() if key != "name"}
    except Exception:  # noqa: BLE001 - a user's get_config may fail in whatever way
        return {}


def _clean(name: str) -> str:
    """The name in ASCII, without the characters that split a cache line or a trtexec list."""
    return re.sub(r"[^A-Za-z0-9_./\-]", "_", name) or "_"
