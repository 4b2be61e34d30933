"""Own activation: a function of the user's that one of Keras' layers has for its activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from tfqat.graph.graph import Op, Source
from tfqat.graph.kinds import KERNEL_AXES, snake_case
from tfqat.view.custom import is_own, stock_class
from tfqat.view.part import Shape, derived

# Keras' layers that may end with a function of the user's, and do without it where it stands behind them.
_ACTIVATED = frozenset((*KERNEL_AXES, "activation", "einsum_dense", "separable_conv1d", "separable_conv2d"))


def own_activation(operation: Any) -> Callable[..., Any] | None:
    """The activation of a layer where it is neither Keras' own nor one of TensorFlow's that Keras has as well.

    It counts which function it is, not how it is called: a user's ``relu`` need not be Keras'.
    """
    if not isinstance(operation, keras.layers.Layer) or not is_own(stock_class(operation)):
        return None
    function = getattr(operation, "activation", None)
    if snake_case(stock_class(operation).__name__) not in _ACTIVATED or not callable(function):
        return None
    if isinstance(function, keras.layers.Layer):
        return None if is_own(stock_class(function)) else function
    home, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
    known = home.startswith("tensorflow.") and hasattr(keras.activations, name)
    return None if home.startswith("keras.") or known else function


def as_layer(function: Callable[..., Any], operation: Any, shape: Shape) -> keras.layers.Layer:
    """The function, or layer, as a layer that can be traced on a tensor of that shape."""
    if isinstance(function, keras.layers.Layer):
        if not function.built:  # Keras leaves that to the first call on numbers
            function.build(shape)
        return function
    return keras.layers.Lambda(function, name=label_of(function), dtype=operation.dtype_policy)


def label_of(function: Callable[..., Any]) -> str:
    """A name for what the function computes."""
    name = getattr(function, "__name__", "") or type(function).__name__
    return snake_case(name) if name.isidentifier() else "activation"


def without_activation(whole: Op) -> Op:
    """The layer's op with what the activation is applied to as its result."""
    config = {**whole.source.config, "activation": "linear", "activity_regularizer": None}
    kind = "linear" if whole.source.cls is keras.layers.Activation else whole.kind
    return replace(whole, kind=kind, source=replace(whole.source, config=config))


def regularized(whole: Op, tensor: str) -> Op | None:
    """An op that does nothing but carry the layer's activity_regularizer, None where it has none."""
    given = whole.source.config.get("activity_regularizer")
    if given is None:
        return None
    name = f"{whole.layer_name}/regularized"
    source = derived(whole, keras.layers.Activation, {"activation": "linear", "activity_regularizer": given}, (), name)
    return Op(name, name, "linear", (tensor,), (name,), source)


def kept_as_one(function: Callable[..., Any], whole: Op, before: str, reason: str) -> Op:
    """The activation alone as one op, in float for that reason."""
    name = f"{whole.layer_name}/{label_of(function)}"
    layer = keras.layers.Activation(function, dtype=whole.source.built.dtype_policy)
    source = Source(keras.layers.Activation, {}, (), (whole.source.key, "activation"), layer)
    kind = f"custom_{label_of(function)}"
    return Op(name, name, kind, (before,), (name,), source, reason=f"activation not seen inside: {reason}")
