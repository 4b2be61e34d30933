"""View: a Keras model seen as a Graph, with nested models and composite layers inlined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import tree

from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph, Op, Ref, Source
from tfqat.graph.kinds import kind_of, snake_case
from tfqat.view.arguments import arguments_of, config_of, with_refs
from tfqat.view.attention import with_products
from tfqat.view.batch import is_batched
from tfqat.view.carried_masks import CarriedMask, CarriedMasks, Names
from tfqat.view.custom import is_composite, is_own, is_registered, needs_proof, stock_class, why_whole
from tfqat.view.frozen import frozen, is_frozen_away
from tfqat.view.function import Function, called, function_of
from tfqat.view.local_names import local_names
from tfqat.view.nodes import node_of, nodes_in_order
from tfqat.view.op_list import OpList
from tfqat.view.own_activation import as_layer, kept_as_one, own_activation, regularized, without_activation
from tfqat.view.proof import check_variables, trace
from tfqat.view.scope import Scope
from tfqat.view.time_distributed import at_once
from tfqat.view.trace import Trace
from tfqat.view.trace_error import TraceError
from tfqat.view.weighted import Weighted, weighted_calls
from tfqat.view.with_weights import WithWeights


def view(model: keras.Model, input_names: Sequence[str] = ()) -> Graph:
    """The model as a Graph; the model itself is only read.

    Sequential, nested and subclassed models are inlined, and so are layers made of other layers: their ``call`` is
    run on symbolic inputs. Fused activations and separable convolutions are split.

    Args:
        model: the Keras model.
        input_names: names for its inputs, flat, in place of those that it gives.

    Raises:
        TfqatError: it is no Keras model, has no known input shape, or its own ``call`` cannot run on symbolic tensors.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TfqatError(f"Expected a Keras model, received {model!r}. tfqat.load_model reads one from a file.")
    return with_products(_Viewer().view(model, input_names))


class _Viewer:
    """The state of one viewing.

    Attributes:
        found: the ops found so far.
        masks: what travels with their results.
        holders: id of a variable -> key of the layer that holds it.
        alive: what is told apart by id.
    """

    def __init__(self) -> None:
        self.found = OpList()
        self.masks = CarriedMasks()
        self.holders: dict[int, Any] = {}
        self.alive: list[Any] = []

    def view(self, model: keras.Model, input_names: Sequence[str] = ()) -> Graph:
        function = function_of(model)
        wanted = input_names or function.names or [t._keras_history.operation.name for t in function.inputs]
        pairs = zip(function.inputs, wanted, strict=True)
        names: Names = {id(tensor): self.found.add_input(tensor, name) for tensor, name in pairs}
        inputs = tuple(names[id(tensor)] for tensor in function.inputs)
        outputs = self._inline_function(function, names, Scope())
        ops = _needed(self.found.ops, outputs)
        tensors = {*inputs, *(tensor for op in ops for tensor in op.outputs)}
        return Graph(
            name=model.name,
            ops=ops,
            inputs=inputs,
            outputs=tuple(outputs),
            shapes=_only(tensors, self.found.shapes),
            dtypes=_only(tensors, self.found.dtypes),
            input_structure=_numbered(function.inputs_struct),
            output_structure=_numbered(function.outputs),
        )

    def _inline_function(self, function: Function, names: Names, scope: Scope) -> list[str]:
        """Appends the ops of a model; ``names`` maps ids of its input tensors to the outer names."""
        self.alive.append(function)
        if function.trace is None:
            return self._inline(function.inputs, function.outputs, names, scope)
        return self._inline_trace(function.trace, function.model, names, replace(scope, traced=True))

    def _inline(self, inputs: Any, outputs: Any, names: Names, scope: Scope) -> list[str]:
        """Appends the ops between some tensors and others."""
        for node in nodes_in_order(inputs, outputs):
            if id(node.outputs[0]) not in names:
                self._name_results(node.outputs, self._call(node, names, scope), names)
        return [self._named(tensor, names, scope) for tensor in tree.flatten(outputs)]

    def _inline_trace(self, found: Trace, layer: Any, names: Names, scope: Scope) -> list[str]:
        """Appends what a trace has found; ``names`` maps ids of its input tensors to the outer names."""
        before = self.found.batched
        self.found.batched = before or is_batched(found.inputs)
        results = self._inline_calls(found, layer, names, scope)
        self.found.batched = before
        return results

    def _inline_calls(self, found: Trace, layer: Any, names: Names, scope: Scope) -> list[str]:
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

    def _name_results(self, tensors: Iterable[Any], results: list[str], names: Names) -> None:
        names.update(zip((id(tensor) for tensor in tensors), results, strict=True))

    def _call(self, node: Any, names: Names, scope: Scope) -> list[str]:
        """Appends what one call amounts to; the names of its results."""
        operation = node.operation
        if isinstance(operation, keras.Model):
            return self._inline_model(node, names, scope)
        inside = self._look_inside(node, names, scope) if is_composite(operation) else why_whole(operation)
        results = inside if isinstance(inside, list) else self._add(node, names, scope, inside)
        if isinstance(operation, keras.layers.Layer):
            self.masks.follow(node, results, names, scope)
        return results

    def _inline_model(self, node: Any, names: Names, scope: Scope) -> list[str]:
        args, kwargs = self._carried(arguments_of(node), names, scope)
        function, given = called(node.operation, args, kwargs)
        pairs = zip(function.inputs, given, strict=True)
        inner: Names = {id(tensor): self._named(outer, names, scope) for tensor, outer in pairs}
        return self._inline_function(function, inner, replace(scope, prefix=scope.path_of(node.operation)))

    def _look_inside(self, node: Any, names: Names, scope: Scope) -> list[str] | str:
        """Appends what a composite layer is made of; or why that cannot be seen."""
        layer = at_once(node.operation)
        args, kwargs = self._carried(arguments_of(node), names, scope)
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
        inner: Names = {id(tensor): self._named(outer, names, scope) for tensor, outer in pairs}
        inside = Scope(scope.path_of(layer), True, scope.names | local_names(layer), scope.frozen)
        return self._inline_trace(found, layer, inner, inside)

    def _named(self, tensor: Any, names: Names, scope: Scope) -> str:
        """The name of a tensor; what Keras computes beside the graph, as masks, is computed in it first."""
        if id(tensor) not in names:
            self._inline(_ancestors(tensor, names), tensor, names, replace(scope, traced=True))
        name = names[id(tensor)]
        if isinstance(name, CarriedMask):
            name = names[id(tensor)] = self._named(name.tensor, name.names, name.scope)
        return name

    def _carried(self, nest: Any, names: Names, scope: Scope) -> Any:
        """A nest of arguments with tensors of its own, which carry the masks that their values will carry."""

        def carry(leaf: Any) -> Any:
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            fresh = keras.KerasTensor(leaf.shape, leaf.dtype)
            self.alive.append(fresh)
            names[id(fresh)] = self._named(leaf, names, scope)
            mask = self.masks.of(leaf, names)
            if mask is not None:
                fresh._keras_mask = mask
            return fresh

        return tree.map_structure(carry, nest)

    def _add(self, node: Any, names: Names, scope: Scope, reason: str = "") -> list[str]:
        args, kwargs = arguments_of(node)
        kwargs = {**kwargs, **self.masks.arguments(node.operation, args, kwargs, names)}
        tensors = [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
        inputs = [self._named(tensor, names, scope) for tensor in tensors]
        whole = self._whole(node.operation, inputs, with_refs(args, kwargs), scope, reason)
        if scope.frozen and is_frozen_away(whole):
            return inputs[:1]
        function = own_activation(node.operation)
        if function is not None:
            return self._add_activated(function, whole, node, scope)
        return self.found.append(frozen(whole) if scope.frozen else whole, node.outputs)

    def _add_activated(self, function: Any, whole: Op, node: Any, scope: Scope) -> list[str]:
        """Appends a layer, and behind it what an activation of the user's own computes."""
        linear, result = without_activation(whole), node.outputs[0]
        before = linear.inputs[0] if linear.kind == "linear" else self.found.append(linear, [result])[0]
        results = self._add_activation(function, linear, before, node, scope)
        regular = regularized(whole, results[0])
        return results if regular is None else self.found.append(regular, [result])

    def _add_activation(self, function: Any, linear: Op, before: str, node: Any, scope: Scope) -> list[str]:
        result = node.outputs[0]
        layer = as_layer(function, node.operation, result.shape)
        try:
            found = trace(layer, (keras.KerasTensor(result.shape, result.dtype),), {}, proved=True)
        except TraceError as error:
            return self.found.append(kept_as_one(function, linear, before, str(error)), [result])
        self.alive.append(found)
        inside = Scope(scope.path_of(node.operation), True, local_names(layer), scope.frozen)
        return self._inline_trace(found, layer, {id(found.inputs[0]): before}, inside)

    def _add_weighted(self, call: Weighted, names: Names, scope: Scope) -> list[str]:
        inputs = [self._named(tensor, names, scope) for tensor in call.reads]
        for variable in call.source.values:
            if self.holders.setdefault(id(variable), call.source.key) != call.source.key:
                raise TfqatError(
                    f"{scope.prefix}{call.name}: a variable of this layer is used in different ways by different calls "
                    "of it. Use it in one way, or make two layers."
                )
        base = self.found.layer_name(call.source.key, scope.named(call.name))
        whole = Op(base, base, call.kind, tuple(inputs), (base,), call.source, call.args)
        return self.found.append(whole, call.results)

    def _whole(self, operation: Any, inputs: list[str], arguments: Any, scope: Scope, reason: str) -> Op:
        """The call as one op, before it is split into parts and numbered."""
        args, kwargs = arguments
        cls = stock_class(operation)
        config = config_of(operation, cls)
        base = self.found.layer_name(id(operation), scope.name_of(operation))
        values = tuple(operation.weights) if isinstance(operation, keras.layers.Layer) else ()
        source = Source(cls, config, values, id(operation), operation)
        kind = _kind_of(cls, config, kwargs, len(inputs))
        return Op(base, base, kind, tuple(inputs), (base,), source, args, kwargs, reason)


def _kind_of(cls: Any, config: Mapping[str, Any], kwargs: Mapping[str, Any], inputs: int) -> str:
    """The op's kind; a user's own class has one of its own, whatever it is called."""
    if cls is WithWeights:
        return config["kind"]
    return kind_of(cls.__name__, {**config, **kwargs}, inputs) if is_own(cls) else f"custom_{snake_case(cls.__name__)}"


def _only(tensors: set[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {tensor: value for tensor, value in values.items() if tensor in tensors}


def _ancestors(tensor: Any, names: Names) -> list[Any]:
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


def _numbered(structure: Any) -> Any:
    order = iter(range(len(tree.flatten(structure))))
    return tree.map_structure(lambda _: Ref(next(order)), structure)
