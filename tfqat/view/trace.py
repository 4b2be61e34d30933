"""Trace: what a ``call`` computes, seen as layers and operations, by running it on symbolic tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import tree

from tfqat.graph.kinds import snake_case
from tfqat.view.batch import check_batch, settle
from tfqat.view.nodes import nodes_in_order
from tfqat.view.stand_ins import WAYS, StandIns, Way, mask_of, mask_places
from tfqat.view.symbolic_keras import tracing
from tfqat.view.trace_error import IN_ONE_GRAPH, TraceError, explain, place_in_call


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
    stand_ins = StandIns(layer, way)
    bound.arguments.update(tree.map_structure(stand_ins.of_tensor, dict(bound.arguments)))
    with tracing(layer, stand_ins, training):
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
    check_batch(found.inputs, layer)
    for node in found.nodes:
        settle(node, inputs[0])
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
