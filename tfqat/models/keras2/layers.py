"""Keras 2 layers made into the Keras 3 layers that compute the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras

from tfqat.errors import TfqatError

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
    "input_dim": None,
    "batch_size": None,
}
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
_CLASSES = {"SyncBatchNormalization": "BatchNormalization", "Experimental>SyncBatchNormalization": "BatchNormalization"}
_LAYER_KEYS = frozenset({"name", "trainable", "dtype", "activity_regularizer"})
# Keras 2: 0.2 x + 0.5; Keras 3: relu6(x + 3) / 6.
_CHANGED_ACTIVATIONS = frozenset({"hard_sigmoid"})


def keras3_layer(class_name: str, config: Mapping[str, Any], name: str) -> keras.layers.Layer:
    """The layer of that Keras 2 class and config, under a name; its weights are still to be set.

    Raises:
        TfqatError: a Lambda, a class that Keras has not, a config that Keras 3's layer cannot honour.
    """
    cls = _class_of(class_name, name)
    wanted = dict(_renamed_keys(class_name, config))
    if isinstance(wanted.get("axis"), list) and len(wanted["axis"]) == 1:
        wanted["axis"] = wanted["axis"][0]
    if isinstance(wanted.get("dtype"), Mapping):
        wanted["dtype"] = wanted["dtype"].get("config", {}).get("name")
    for key in ("activation", "recurrent_activation"):
        _check_activation(wanted.get(key), name, class_name)
    kept = {key: value for key, value in wanted.items() if _is_kept(cls, key, value, name)}
    try:
        return cls.from_config({**kept, "name": name})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise TfqatError(f"Layer {name!r} ({class_name}) cannot be made in Keras 3: {error}") from error


def keras3_name(name: str) -> str:
    """A layer name that Keras 3 takes, and that files for devices can hold."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", name) or "_"


def _class_of(class_name: str, name: str) -> Any:
    if class_name == "Lambda":
        raise TfqatError(
            f"Layer {name!r} is a Lambda: Python code inside the file, which tfqat never runs. Replace it by a Keras "
            "layer before quantizing. (TFMOT itself puts Lambdas around a SeparableConv1D.)"
        )
    known = _CLASSES.get(class_name, class_name)
    cls = getattr(keras.layers, known, None)
    if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
        raise TfqatError(
            f"Layer {name!r} is a {class_name}, which is no layer of Keras; expected stock layers, wrapped by TFMOT or "
            "not. Custom layers and TensorFlow functions called on Keras tensors cannot be read."
        )
    return cls


def _renamed_keys(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    names = _RENAMED.get(class_name, {})
    # Initial values are replaced by the weights.
    return {names.get(key, key): value for key, value in config.items() if not key.endswith("_initializer")}


def _is_kept(cls: type, key: str, value: Any, name: str) -> bool:
    if key in _LAYER_KEYS or key in _arguments(cls):
        return True
    if value is None:
        return False
    neutral = _WITHOUT_MEANING.get(key, ())
    if neutral is not None and value not in neutral:
        raise TfqatError(
            f"Layer {name!r} ({cls.__name__}) has {key}={value!r}, which Keras 3's {cls.__name__} has not."
        )
    return False


def _arguments(cls: type) -> set[str]:
    """What the constructors of a class and its bases take by name."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base is not keras.layers.Layer and "__init__" in vars(base) and issubclass(base, keras.layers.Layer):
            found |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return found - {"self", "args", "kwargs", *_hidden(cls)}


def _hidden(cls: type) -> set[str]:
    """Arguments of a base class that this class does not hand on: its own constructor has no ``**kwargs`` for them."""
    # DepthwiseConv2D and Conv2DTranspose inherit from a base with ``groups``, and set it themselves.
    own = set(inspect.signature(cls).parameters)
    return {"groups", "rank"} - own


def _check_activation(activation: Any, name: str, class_name: str) -> None:
    if activation is None or (isinstance(activation, str) and activation not in _CHANGED_ACTIVATIONS):
        return
    raise TfqatError(
        f"Layer {name!r} ({class_name}) has the activation {activation!r}, which Keras 3 has not or computes "
        "otherwise; expected the name of a stock activation."
    )
