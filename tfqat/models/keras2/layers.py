"""Keras 2 layers made into the Keras 3 layers that compute the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.models.keras2.activations import CHANGED, activation_name, keras2_hard_sigmoid
from tfqat.models.reason import last_said

# Keys that Keras 3's layers do not take -> the values, besides None, with which they changed nothing; None allows any.
_WITHOUT_MEANING: Mapping[str, tuple[Any, ...] | None] = {
    "groups": (1,),
    "ragged": (False,),
    "sparse": (False,),
    "dynamic": (False,),
    "renorm": (False,),
    "fused": None,
    "implementation": None,
    "time_major": (False,),
    "batch_input_shape": None,
    "input_shape": None,
    "input_dim": None,
    "input_length": None,
    "batch_size": None,
    "causal": (False,),
    "num_constants": (0,),
    "vocabulary_size": None,
    # What MultiHeadAttention was built for, and how it adds a mask to its scores, which leaves no trace in the softmax.
    "query_shape": None,
    "key_shape": None,
    "value_shape": None,
    "softmax_robust_masking": None,
    # How a random layer draws, or a cluster trains.
    "rng_type": None,
    "force_generator": None,
    "auto_vectorize": None,
    "experimental_run_in_parallel": None,
}
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "ThresholdedReLU": {"theta": "threshold"}}
_CLASSES = {
    "SyncBatchNormalization": "BatchNormalization",
    "ThresholdedReLU": "ReLU",
    # The dropout of EfficientNets before Keras 2.3.
    "FixedDropout": "Dropout",
}
# What a layer was by default in the Keras 2 that wrote no such key.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"GRU": {"reset_after": False}, "GRUCell": {"reset_after": False}}
# Layers of keras.applications, which Keras does not export.
_OF_APPLICATIONS = dict.fromkeys(("LayerScale", "StochasticDepth"), "keras.src.applications.convnext")
_LAYER_KEYS = frozenset({"name", "trainable", "dtype", "activity_regularizer"})
_ACTIVATIONS = ("activation", "recurrent_activation")
# Layers with activations inside, which no op behind the layer can change.
RECURRENT = frozenset("SimpleRNN LSTM GRU ConvLSTM1D ConvLSTM2D ConvLSTM3D".split())
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
# Keys whose values are configs of layers.
_PARTS = ("layer", "backward_layer", "cell", "cells")


def keras3_layer(
    class_name: str, config: Mapping[str, Any], name: str, parts: Mapping[str, Any] | None = None
) -> keras.layers.Layer:
    """The layer of that Keras 2 class and config, under a name; its weights are still to be set.

    ``parts`` are layers that take the place of those in the config, by its keys.

    Raises:
        TfqatError: a Lambda, a class that Keras has not, a config that Keras 3's layer cannot honour.
    """
    registered = keras.saving.get_registered_object
    if own := registered(class_name) or registered(class_name.split(">")[-1]):
        return _own_layer(own, {**config, "name": name}, name)
    cls = _class_of(class_name, name)
    wanted = {**_DEFAULTS.get(class_name, {}), **_renamed_keys(class_name, config)}
    if isinstance(wanted.get("axis"), list) and len(wanted["axis"]) == 1:
        wanted["axis"] = wanted["axis"][0]
    wanted["dtype"] = dtype_name(wanted.get("dtype"))
    _check_interpolation(wanted.get("interpolation"), name, class_name)
    for key in _ACTIVATIONS:
        if key in wanted:
            wanted[key] = _activation(wanted[key], name, class_name)
    inner = {**_inner_layers(wanted, parts or {}), **(parts or {})}
    kept = {key: value for key, value in wanted.items() if key not in inner and _is_kept(cls, key, value, name)}
    try:
        layer = cls(**{**kept, **inner, "name": name}) if inner else cls.from_config({**kept, "name": name})
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise TfqatError(f"Layer {name!r} ({class_name}) cannot be made in Keras 3: {last_said(error)}") from error
    if not config.get("trainable", True):
        layer.trainable = False
    return layer


def _own_layer(own: Any, config: Mapping[str, Any], name: str) -> keras.layers.Layer:
    """The layer of a class that the caller has given or registered."""
    layer = own.from_config(config) if hasattr(own, "from_config") else None
    if not isinstance(layer, keras.layers.Layer):
        raise TfqatError(
            f"Layer {name!r}: the custom object given for it is {own!r}; expected a class derived from "
            "keras.layers.Layer of Keras 3 that computes the same (one of tf_keras does not work in a Keras 3 model)."
        )
    return layer


def dtype_name(dtype: Any) -> Any:
    """A dtype, or the policy that stands in its place, by its name."""
    return dtype.get("config", {}).get("name") if isinstance(dtype, Mapping) else dtype


def _check_interpolation(how: Any, name: str, class_name: str) -> None:
    # Keras 3 looks at it when it runs only.
    if isinstance(how, str) and how not in INTERPOLATIONS:
        raise TfqatError(
            f"Layer {name!r} ({class_name}) has interpolation {how!r}; Keras 3 has {', '.join(INTERPOLATIONS)}."
        )


def keras3_name(name: str) -> str:
    """A layer name that Keras 3 takes, and that files for devices can hold."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", name) or "_"


def _class_of(class_name: str, name: str) -> Any:
    if class_name == "Lambda":
        raise TfqatError(
            f"Layer {name!r} is a Lambda: Python code inside the file, which tfqat never runs. Replace it by a Keras "
            "layer before quantizing. (TFMOT itself puts Lambdas around a SeparableConv1D.)"
        )
    known = class_name.removeprefix("Experimental>")
    known = _CLASSES.get(known, known)
    home = _OF_APPLICATIONS.get(known.removeprefix("Custom>"))
    cls = getattr(import_module(home), known.removeprefix("Custom>")) if home else getattr(keras.layers, known, None)
    if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
        raise TfqatError(
            f"Layer {name!r} is a {class_name}, which is no layer of Keras 3. Give a Keras 3 layer that computes the "
            "same as custom_objects={name: class}, or replace it in the model by stock layers."
        )
    return cls


def _renamed_keys(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    names = _RENAMED.get(class_name, {})
    # Initial values are replaced by the weights.
    return {names.get(key, key): _plain(value) for key, value in config.items() if not key.endswith("_initializer")}


def _plain(value: Any) -> Any:
    """A number that an old Keras wrote with its type, as the number."""
    if isinstance(value, Mapping) and set(value) == {"type", "value"}:
        return value["value"]
    return value


def _inner_layers(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The layers in a config, made, the given ones aside: what a wrapper wraps, the cells of an RNN."""
    found = {key: config[key] for key in _PARTS if config.get(key) and key not in given}
    return {
        key: [_inner(part) for part in value] if isinstance(value, list) else _inner(value)
        for key, value in found.items()
    }


def _inner(entry: Mapping[str, Any]) -> keras.layers.Layer:
    config = entry["config"]
    return keras3_layer(entry["class_name"], config, keras3_name(str(config.get("name", entry["class_name"]))))


def _is_kept(cls: type, key: str, value: Any, name: str) -> bool:
    if key in _arguments(cls):
        return True
    if value is None or key == "trainable" or (key == "dtype" and value == keras.config.floatx()):
        return False
    neutral = _WITHOUT_MEANING.get(key, ())
    if neutral is not None and value not in neutral:
        raise TfqatError(
            f"Layer {name!r} ({cls.__name__}) has {key}={value!r}, which Keras 3's {cls.__name__} has not."
        )
    return False


def _arguments(cls: type) -> set[str]:
    """What the constructor of a class takes by name, those of its bases included where it hands them on."""
    own = inspect.signature(cls).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
        return set(own)
    found: set[str] = set(_LAYER_KEYS)
    for base in cls.__mro__:
        if base is not keras.layers.Layer and "__init__" in vars(base) and issubclass(base, keras.layers.Layer):
            found |= set(inspect.signature(vars(base)["__init__"]).parameters)
    # DepthwiseConv2D and Conv2DTranspose inherit from a base with ``groups``, and set it themselves.
    return found - {"self", "args", "kwargs", *({"groups", "rank"} - set(own))}


def _activation(value: Any, name: str, class_name: str) -> Any:
    found = activation_name(value, name, class_name)
    if isinstance(found, Mapping):
        return keras3_layer(found["class_name"], found["config"], f"{name}_{found['class_name'].lower()}")
    return keras2_hard_sigmoid if found == CHANGED else found
