"""Build: a Graph made into a flat functional Keras model again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection
from typing import Any

import keras
import numpy as np
from keras import tree

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.graph.graph import Graph, Op, Ref
from tfqat.graph.own_arguments import from_own_arguments

# Keras forbids '/' in the names of layers; a nested op's layer has this in its place. It is valid in TensorFlow's
# name scopes and hardly ever part of a user's name.
NESTING = ">"


def build(graph: Graph, model_class: Callable[..., keras.Model] = keras.Model) -> keras.Model:
    """A new model with new layers and the sources' weights; nothing of the viewed model is touched.

    ``model_class(inputs, outputs, name=...)`` makes it.
    """
    tensors: dict[str, Any] = {name: _input(graph, name) for name in graph.inputs}
    layers: dict[Any, Any] = {}
    used: set[str] = set()
    fresh = []
    with room_for(len(graph.ops)), warnings.catch_warnings():
        # Masks are tensors of the graph here; those that Keras hangs on tensors besides are read by nobody.
        warnings.filterwarnings("ignore", message=".*does not support masking", category=UserWarning)
        for op in graph.ops:
            if op.source.key not in layers:
                layers[op.source.key] = layer = make_layer(op, _free_name(op, used))
                used.add(layer.name)
                fresh.append((layer, op.source.values))
            tensors.update(call(op, layers[op.source.key], tensors))
        model = model_class(
            _structured(graph.input_structure, graph.inputs, tensors),
            _structured(graph.output_structure, graph.outputs, tensors),
            name=graph.name,
        )
    for layer, values in fresh:
        _set_weights(layer, values)
    return model


def make_layer(op: Op, name: str) -> Any:
    """A new layer (or operation) as the op's source says, not built yet.

    Raises:
        TfqatError: its config does not say enough to make it again.
    """
    if not op.source.config and op.source.built is not None and not issubclass(op.source.cls, keras.layers.Layer):
        return _renamed(op.source.built, name)
    if op.source.cls is keras.layers.Lambda and op.source.built is not None:
        return _same_function(op.source.built, name)
    if op.source.cls is keras.layers.Activation and not op.source.config:
        return keras.layers.Activation(op.source.built.activation, name=name, dtype=op.source.built.dtype_policy)
    try:
        return op.source.cls.from_config({**op.source.config, "name": name})
    except (TypeError, ValueError) as error:
        layer = from_own_arguments(op.source.cls, {**op.source.config, "name": name})
        if layer is not None:
            return layer
        raise TfqatError(
            f"Layer {op.name!r} ({op.source.cls.__name__}) cannot be made again from its config ({error}). Give the "
            "class a get_config() with all arguments of its constructor."
        ) from error


def _renamed(operation: Any, name: str) -> Any:
    """A stateless operation under another name, as if it had never been called."""
    fresh = copy.copy(operation)
    fresh.name, fresh._inbound_nodes, fresh._outbound_nodes = name, [], []
    return fresh


def _same_function(layer: keras.layers.Lambda, name: str) -> keras.layers.Lambda:
    """A Lambda with the function of another; one without a name cannot be read back from the config."""
    return keras.layers.Lambda(
        layer.function, layer._output_shape, layer.mask, layer.arguments, name=name, dtype=layer.dtype_policy.name
    )


def layer_name_of(op_layer_name: str) -> str:
    """The Keras layer name under which an op's layer stands in a flat model."""
    return op_layer_name.replace("/", NESTING)


def _free_name(op: Op, used: Collection[str]) -> str:
    """The layer's name; the call's where calls that shared a layer have been parted (by BatchNorms of their own)."""
    name = layer_name_of(op.layer_name)
    return layer_name_of(op.name) if name in used else name


def call(op: Op, layer: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Calls the layer on the op's inputs; output name -> tensor."""
    args, kwargs = fill(op, tensors)
    outputs = tree.flatten(layer(*args, **kwargs))
    for tensor in outputs:
        if isinstance(tensor, keras.KerasTensor):
            # Keras takes a symbolic product with a number for sparse, and finds other shapes for what reads that.
            tensor._sparse = False
    return dict(zip(op.outputs, outputs, strict=True))


def fill(op: Op, tensors: dict[str, Any]) -> tuple[Any, Any]:
    """The op's arguments with tensors in place of the Refs."""
    place = lambda leaf: tensors[op.inputs[leaf.index]] if isinstance(leaf, Ref) else leaf  # noqa: E731
    return tree.map_structure(place, (list(op.args), dict(op.kwargs)))


def _input(graph: Graph, name: str) -> Any:
    return keras.Input(batch_shape=graph.shapes[name], dtype=graph.dtypes[name], name=layer_name_of(name))


def _structured(structure: Any, names: tuple[str, ...], tensors: dict[str, Any]) -> Any:
    return tree.map_structure(lambda ref: tensors[names[ref.index]], structure)


def _set_weights(layer: Any, values: tuple[Any, ...]) -> None:
    # A quantized layer has weights of its own after those of the stock layer: they keep their initial values.
    for variable, value in zip(getattr(layer, "weights", ()), values, strict=False):
        if tuple(variable.shape) != tuple(value.shape):
            raise TfqatError(
                f"Layer {layer.name!r} ({type(layer).__name__}), made again from its config, has a weight of the shape "
                f"{tuple(variable.shape)}; the model's is {tuple(value.shape)}. Give the class a get_config() with all "
                "arguments of its constructor."
            )
        # A copy: JAX hands a step's buffers over to the next, and would take this layer's away with the other's.
        variable.assign(np.array(keras.ops.convert_to_numpy(value)))
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()  # its call reads numbers derived from the weights, which a plain assign leaves behind
