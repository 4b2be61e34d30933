"""Own arguments: users' layers whose constructor takes theirs alone, none of Keras' (name, dtype, trainable)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

_KERAS = ("name", "trainable", "dtype")


def from_own_arguments(cls: type, config: Mapping[str, Any]) -> Any:
    """The layer, what Keras would hand to the constructor set on it; None where that is not what is in the way."""
    parameters = inspect.signature(cls).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if cls.__module__.split(".")[0] == "keras" or not issubclass(cls, keras.layers.Layer) or takes_any:
        return None
    try:
        layer = cls(**{key: value for key, value in config.items() if key in parameters})
    except (TypeError, ValueError):
        return None
    left = {key: config[key] for key in _KERAS if key in config and key not in parameters}
    if "dtype" in left:
        left["dtype_policy"] = keras.dtype_policies.get(left.pop("dtype"))
    for key, value in left.items():
        setattr(layer, key, value)
    return layer


@contextmanager
def own_arguments_do() -> Iterator[None]:
    """``keras.layers.Layer.from_config`` makes such layers, too."""
    stock = keras.Operation.from_config.__func__

    def from_config(cls: type, config: dict[str, Any]) -> Any:
        try:
            return stock(cls, config)
        except TypeError:
            layer = from_own_arguments(cls, config)
            if layer is None:
                raise
            return layer

    keras.Operation.from_config = classmethod(from_config)
    try:
        yield
    finally:
        keras.Operation.from_config = classmethod(stock)
