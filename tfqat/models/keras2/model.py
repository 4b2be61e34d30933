"""Keras2Model: the config and the weights of a Keras 2 model as plain data, read from a file or from a live model.

Neither tf_keras nor TFMOT is imported (importing TFMOT turns tf.keras into tf_keras for the whole process), and no code
of the file is run. Weights are known by their own names, the last part of TensorFlow's: ``quant_conv/kernel_min:0`` is
``kernel_min``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError

# Attributes of layers that are made of layers, in the order of ``layer.weights``.
PARTS = "forward_layer backward_layer layer cell cells _query_dense _key_dense _value_dense _output_dense".split()
# (own name, value) of each weight, in the order of ``layer.weights``: trainable ones first.
Weights = tuple[tuple[str, np.ndarray], ...]


@dataclass(frozen=True, eq=False)
class Keras2Model:
    """A model as it was written down.

    Attributes:
        source: the file, or what the live model is, for messages.
        class_name: ``Functional``, ``Model`` or ``Sequential``.
        config: its config; ``config["layers"]`` has one entry a layer.
        weights: path of a layer -> its weights. A path is the layer's name, those of the models around it before it; a
            model inside the model has an entry for itself or for its layers.
    """

    source: str
    class_name: str
    config: Mapping[str, Any]
    weights: Mapping[tuple[str, ...], Weights]


def is_live(model: Any) -> bool:
    """Whether ``model`` is a model of tf_keras, told by its interface: the package itself need not be there."""
    # Of the class, since a model that is not built has no weights to show.
    has_all = all(hasattr(type(model), name) for name in ("to_json", "layers", "weights", "get_config"))
    return has_all and not isinstance(model, keras.Model)


def read_live(model: Any) -> Keras2Model:
    """A live tf_keras model as plain data.

    Raises:
        TfqatError: a subclassed model, which has no config.
    """
    source = f"the {type(model).__name__} model {model.name!r}"
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise TfqatError(
            f"{source} has no config ({error}); expected a Sequential or functional model. A subclassed model becomes "
            "one by calling it on an Input: tf_keras.Model(x, model.call(x))."
        ) from error
    if not model.built:
        raise TfqatError(f"{source} has no weights yet; call it on data, or build it (model.build), before.")
    weights: dict[tuple[str, ...], Weights] = {
        (layer.name,): tuple((own_name(weight.name), np.asarray(weight.numpy())) for weight in layer.weights)
        for layer in model.layers
    }
    return made(source, config, weights)


def made(source: str, config: Mapping[str, Any], weights: Mapping[tuple[str, ...], Weights]) -> Keras2Model:
    """The Keras2Model of a whole config ({"class_name": ..., "config": ...}) and weights."""
    class_name, inner = str(config.get("class_name")), config.get("config")
    if class_name == "Sequential" and isinstance(inner, list):
        # Before Keras 2.2.3 the config of a Sequential was its layers.
        inner = {"name": "sequential", "layers": inner}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("layers"), list):
        raise TfqatError(
            f"{source} is a {class_name}, and its config has no layers: a subclassed model, whose call() is Python "
            f"code that no file holds. Expected a Sequential or functional model; received {str(config)[:80]}. In the "
            "program that made it, call it on an Input (tf_keras.Model(x, model.call(x))) and save that."
        )
    return Keras2Model(source, class_name, plain(inner), weights)


def plain(item: Any) -> Any:
    """Tuples, shapes and arrays, which newer versions write with their type, as lists and numbers."""
    if isinstance(item, Mapping):
        kind, config = item.get("class_name"), item.get("config")
        if kind in ("__tuple__", "TensorShape") and "items" in item:
            return [plain(part) for part in item["items"]]
        if kind in ("__numpy__", "__tensor__") and isinstance(config, Mapping):
            return config.get("value")
        return {key: plain(value) for key, value in item.items() if not _is_foreign_start(key, value)}
    return [plain(part) for part in item] if isinstance(item, list) else item


def _is_foreign_start(key: str, value: Any) -> bool:
    """Whether it is an initializer of TensorFlow (EfficientNetV2 has them) or the user: the weights replace it."""
    if not key.endswith("_initializer") or not isinstance(value, Mapping):
        return False
    of_keras = str(value.get("module") or "keras").split(".")[0] in ("keras", "tf_keras")
    known = hasattr(keras.initializers, str(value.get("class_name")))
    return not (of_keras and known) or bool(value.get("registered_name"))


def parsed(text: str | bytes, source: str) -> Mapping[str, Any]:
    """The config in a JSON text."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TfqatError(f"{source}: its model config is no JSON ({error}); the file is damaged.") from error
    if not isinstance(config, Mapping):
        raise TfqatError(f"{source}: its model config is {type(config).__name__}; expected a mapping.")
    return config


def own_name(name: str) -> str:
    """The last part of TensorFlow's name of a variable."""
    return name.split(":")[0].split("/")[-1]


def text_of(value: Any) -> str:
    """Text that HDF5 may give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
