"""Arguments: what an operation was made with and called with, as plain data and Refs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from tfqat.graph.graph import Ref
from tfqat.view.own_activation import own_activation


def arguments_of(node: Any) -> tuple[Any, dict[str, Any]]:
    """What the layer was called with: Keras adds ``training``, and masks where there are none, to some calls."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    if not kwargs or not isinstance(node.operation, keras.layers.Layer):
        return args, kwargs

    def is_added(name: str, value: Any) -> bool:
        if name == "training":
            return not value
        return name.endswith("mask") and all(leaf is None for leaf in tree.flatten(value))

    return args, {name: value for name, value in kwargs.items() if not is_added(name, value)}


def with_refs(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
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


def config_of(operation: Any, cls: Any) -> dict[str, Any]:
    """The constructor config, or {} where the operation gives none (it is then used as it stands)."""
    try:
        operation = operation if own_activation(operation) is None else _linear(operation)
        given = operation.get_config() if cls is type(operation) else cls.get_config(operation)
        return {key: value for key, value in given.items() if key != "name"}
    except Exception:  # noqa: BLE001 - a user's get_config may fail in whatever way
        return {}


def _linear(layer: Any) -> Any:
    """The layer without its activation, which is seen apart and may be one that no config can hold."""
    like = object.__new__(type(layer))  # copy.copy would make it again from its config
    vars(like).update(vars(layer), activation=keras.activations.linear)
    return like
