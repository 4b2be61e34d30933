"""Build: the Keras 3 model of a Keras2Model, models inside models included, with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import keras
from keras import ops

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.models.declared import check_declared
from tfqat.models.keras2.activations import CHANGED, CHANGED_BY, activation_name
from tfqat.models.keras2.calls import call_layer
from tfqat.models.keras2.functions import Function, called, tf_function
from tfqat.models.keras2.lambdas import lambda_layer
from tfqat.models.keras2.layers import RECURRENT, dtype_name, keras3_layer, keras3_name
from tfqat.models.keras2.model import Keras2Model
from tfqat.models.keras2.tf_nodes import node_function
from tfqat.models.keras2.weights import Node, check_used, set_weights
from tfqat.models.keras2.wiring import FUNCTIONS, Call, entry_name, wire, wiring_of
from tfqat.models.reason import last_said

# Entries for what is no tensor of one shape.
_NO_COUNTERPART = {
    "InstanceProperty": "a property of a ragged or sparse tensor",
    "InstanceMethod": "a method of a ragged or sparse tensor",
    "ClassMethod": "a method of a ragged or sparse tensor's class",
}


def keras3_model(kept: Keras2Model) -> keras.Model:
    """The Keras 3 model that computes what ``kept`` does, under the same names of layers.

    Its config is known to be safe (:func:`tfqat.models.safety.check_config`).

    Raises:
        TfqatError: a layer or a function that has no counterpart, weights that do not fit; names the layer.
    """
    stored = sum(value.size for found in kept.weights.values() for _, value in found)
    with room_for():
        check_declared(lambda: _built(kept).layer, stored, kept.source)
        root = _built(kept)
    for part in root.parts:
        set_weights(part, (part.name,), kept)
    check_used({part.name for part in root.parts}, kept)
    return root.layer


def _built(kept: Keras2Model) -> Node:
    return _Builder(kept.source).model(kept.class_name, kept.config, None)


class _Builder:
    """The state of one reading: layers that several models share, by the id that Keras 2 gave them."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.shared: dict[Any, Node] = {}

    def model(self, class_name: str, config: Mapping[str, Any], given: Any) -> Node:
        """The model of a config; ``given`` are the tensors that it is called with first, where it is inside another."""
        if class_name == "Sequential":
            config = with_input(config, given)
        config = {"name": class_name.lower(), **config}
        scope = _Scope(self, {entry_name(entry): entry for entry in config["layers"]})
        wiring = wiring_of(class_name, config)
        model = wire(wiring, scope.apply, keras3_name(wiring.name))
        parts = tuple(scope.nodes[name] for name in scope.entries if name in scope.nodes)
        _freeze(model, parts, config.get("trainable", True))
        return Node(str(config["name"]), model, parts)


class _Scope:
    """One model in the making: its entries, and the layers made from them on their first call."""

    def __init__(self, builder: _Builder, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self.builder = builder
        self.entries = entries
        self.nodes: dict[str, Node] = {}
        self.runs: dict[str, Callable[..., Any]] = {}
        self.names: set[str] = set()

    def apply(self, call: Call, first: Any, arguments: dict[str, Any]) -> Any:
        """What the call gives."""
        entry = self.entries[call.layer]
        try:
            if call.first is None and not arguments:
                return _input(entry, self._free(call.layer))
            if call.layer not in self.runs:
                self.runs[call.layer] = self._made(entry, call.layer, first)
            return self.runs[call.layer](first, **arguments)
        except TfqatError:
            raise
        except (TypeError, ValueError, AttributeError, NotImplementedError, IndexError, KeyError) as error:
            raise TfqatError(
                f"{self.builder.source}: layer {call.layer!r} ({entry.get('class_name')}) cannot be called in Keras 3 "
                f"as it was in Keras 2: {last_said(error)}"
            ) from error

    def _made(self, entry: Mapping[str, Any], name: str, first: Any) -> Callable[..., Any]:
        class_name, config = entry["class_name"], entry["config"]
        if function := self._function(class_name, config, name):
            self.nodes[name] = Node(name, None)
            return function
        shared = entry.get("shared_object_id")
        node = self.builder.shared.get(shared) or self._node(class_name, config, name, first)
        if shared is not None:
            self.builder.shared[shared] = node
        self.nodes[name] = Node(name, node.layer, node.parts)
        return self._caller(class_name, config, node, name)

    def _function(self, class_name: str, config: Mapping[str, Any], name: str) -> Callable[..., Any] | None:
        """How an entry is run that is no layer in Keras 3."""
        if class_name in _NO_COUNTERPART:
            raise TfqatError(
                f"{self.builder.source}: layer {name!r} is {_NO_COUNTERPART[class_name]}, which Keras 3 has not."
            )
        if class_name in FUNCTIONS:
            symbol = config["function"]
            return self._naming(tf_function(symbol, name), name, symbol)
        if class_name == "TensorFlowOpLayer":
            function, symbol = node_function(config, name)
            return self._naming(function, name, symbol)
        if class_name == "Activation" and activation_name(config.get("activation"), name, class_name) == CHANGED:
            return self._naming(_hard_sigmoid, name, CHANGED)
        if class_name.split(">")[-1] == "CustomScaleLayer":
            # Of keras.applications' InceptionResNetV2: x + scale * residual.
            scale = config["scale"]
            return self._naming(lambda inputs: ops.add(inputs[0], ops.multiply(inputs[1], scale)), name, class_name)
        return None

    def _node(self, class_name: str, config: Mapping[str, Any], name: str, first: Any) -> Node:
        if "layers" in config:
            return self.builder.model(class_name, config, first)
        if class_name == "Lambda":
            return Node(name, lambda_layer(config, self._free(name), self.builder.source))
        inner = config.get("layer")
        if isinstance(inner, Mapping) and "layers" in inner.get("config", {}):
            sample = keras.KerasTensor((first.shape[0], *first.shape[2:]), first.dtype)
            part = self.builder.model(inner["class_name"], inner["config"], sample)
            layer = keras3_layer(class_name, config, self._free(name), {"layer": part.layer})
            return Node(name, layer, (part,))
        if _ends_changed(class_name, config):
            config = {**config, "activation": "linear"}
        return Node(name, keras3_layer(class_name, config, self._free(name)))

    def _caller(self, class_name: str, config: Mapping[str, Any], node: Node, name: str) -> Callable[..., Any]:
        layer = node.layer
        call = lambda first, **arguments: call_layer(class_name, layer, first, arguments)  # noqa: E731
        if _ends_changed(class_name, config):
            after = self._naming(_hard_sigmoid, f"{name}_{CHANGED}", CHANGED)
            return lambda first, **arguments: after(call(first, **arguments))
        return call

    def _naming(self, function: Function, name: str, symbol: str) -> Callable[..., Any]:
        """The function, whose operations get names after the entry: Keras' own would be counted from layer to layer."""

        def run(first: Any, **arguments: Any) -> Any:
            result = called(function, name, symbol, first, arguments)
            given = {id(tensor) for tensor in keras.tree.flatten([first, arguments])}
            for operation in _between(result, given):
                operation.name = self._free(name)
            return result

        return run

    def _free(self, wanted: str) -> str:
        """A name that no other layer of the model has."""
        stem = name = keras3_name(wanted)
        others = {keras3_name(entry) for entry in self.entries if entry != wanted}
        for number in count(1):
            if name not in self.names and name not in others:
                break
            name = f"{stem}_{number}"
        self.names.add(name)
        return name


def with_input(config: Mapping[str, Any], given: Any = None) -> Mapping[str, Any]:
    """The config of a Sequential with an InputLayer in front, where it tells its input's shape in another way."""
    layers = config["layers"]
    if layers and layers[0]["class_name"] == "InputLayer":
        return config
    shape, dtype = _first_shape(config), "float32"
    if shape is None and isinstance(given, keras.KerasTensor):
        shape, dtype = list(given.shape), given.dtype
    if shape is None:
        return config
    name = f"{config.get('name', 'sequential')}_input"
    entry = {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "dtype": dtype, "name": name}}
    return {**config, "layers": [entry, *layers]}


def _first_shape(config: Mapping[str, Any]) -> Any:
    """The shape that a model's first layer, or the model itself, says its input has."""
    if shape := config.get("batch_input_shape") or config.get("batch_shape") or config.get("build_input_shape"):
        return shape
    for entry in config.get("layers", ())[:1]:
        return _first_shape(entry["config"])
    return None


def _input(entry: Mapping[str, Any], name: str) -> keras.KerasTensor:
    config = entry["config"]
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if entry["class_name"] != "InputLayer" or shape is None:
        raise TfqatError(f"Input {name!r} has no shape; expected an InputLayer with batch_input_shape.")
    for key in ("sparse", "ragged"):
        if config.get(key):
            raise TfqatError(
                f"Input {name!r} takes {key} tensors; expected dense ones, the only ones that tfqat quantizes."
            )
    return keras.Input(batch_shape=tuple(shape), dtype=dtype_name(config.get("dtype")), name=name)


def _ends_changed(class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether the layer ends in an activation that Keras 3 has otherwise, and that can stand behind it as an op."""
    return config.get("activation") == CHANGED and class_name not in RECURRENT


def _hard_sigmoid(x: Any) -> Any:
    return ops.hard_sigmoid(ops.multiply(x, CHANGED_BY))


def _between(result: Any, given: set[int]) -> list[Any]:
    """The operations that made the tensors of ``result`` out of the given ones, the last one first."""
    found: dict[int, Any] = {}
    waiting = [tensor for tensor in keras.tree.flatten(result) if isinstance(tensor, keras.KerasTensor)]
    while waiting:
        tensor = waiting.pop(0)
        history = getattr(tensor, "_keras_history", None)
        if id(tensor) in given or history is None or id(history.operation) in found:
            continue
        found[id(history.operation)] = history.operation
        waiting += history.operation._inbound_nodes[history.node_index].input_tensors
    return list(found.values())


def _freeze(model: keras.Model, parts: tuple[Node, ...], trainable: bool) -> None:
    """Freezes the model and leaves its layers' own flags as they are."""
    if trainable:
        return
    flags = [(part.layer, part.layer.trainable) for part in parts if part.layer is not None]
    model.trainable = False
    for layer, flag in flags:
        layer.trainable = flag
