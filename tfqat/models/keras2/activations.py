"""Activations of Keras 2: those that mean something else in Keras 3, and how the others are written there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfqat.errors import TfqatError

# Keras 2: clip(0.2 x + 0.5, 0, 1). Keras 3: relu6(x + 3) / 6. So Keras 2's of x is Keras 3's of 1.2 x.
CHANGED = "hard_sigmoid"
CHANGED_BY = 1.2
# Names that TensorFlow's functions have, as Keras 2 writes them -> Keras 3's.
_RENAMED = {"softmax_v2": "softmax", "swish": "silu", "log_softmax_v2": "log_softmax"}


@keras.saving.register_keras_serializable("tfqat")
def keras2_hard_sigmoid(x: Any) -> Any:
    """``clip(0.2 x + 0.5, 0, 1)``, inside recurrent layers."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def activation_name(value: Any, layer: str, class_name: str) -> Any:
    """The name of the activation in a config, or the config of an activation layer; None for none.

    Raises:
        TfqatError: a function of the user's own.
    """
    if isinstance(value, Mapping) and value.get("class_name") == "function":
        value = value.get("config")
    if isinstance(value, Mapping):
        return value
    if value is None or value == CHANGED:
        return value
    name = _RENAMED.get(value, value) if isinstance(value, str) else value
    if isinstance(name, str) and (hasattr(keras.activations, name) or keras.saving.get_registered_object(name)):
        return name
    raise TfqatError(
        f"Layer {layer!r} ({class_name}) has the activation {value!r}, which Keras 3 has not; expected the name of a "
        "stock activation. A function of your own is registered by keras.saving.register_keras_serializable."
    )
