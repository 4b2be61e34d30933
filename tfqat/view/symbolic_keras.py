"""Symbolic Keras: for as long as a ``call`` is traced, Keras takes symbolic tensors where it wants values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import tree

from tfqat.view.attention_calls import by_layers
from tfqat.view.custom import is_own
from tfqat.view.stand_ins import StandIns, variables_replaced


@contextmanager
def tracing(layer: keras.layers.Layer, stand_ins: StandIns, training: bool) -> Iterator[None]:
    """What a layer's ``call`` does is done to symbolic tensors, its variables included."""
    with (
        variables_replaced(layer, stand_ins),
        _calls_replaced(layer, stand_ins, training),
        _calling(layer, training),
        _known_sizes(),
        _arrays_give_way(),
        _activations_take_symbols(),
        by_layers(layer),
    ):
        yield


@contextmanager
def _calls_replaced(layer: keras.layers.Layer, stand_ins: StandIns, training: bool) -> Iterator[None]:
    """Layers inside are called as Keras cannot: on constants as if on tensors, and right through.

    Called on constants alone, a layer would hide its weights. Keras knows no symbolic result of a layer that gives
    None beside tensors, or has another signature than its ``compute_output_spec``: what it does is seen as part of
    the call.
    """
    stock = keras.layers.Layer.__call__
    inside = {id(sub): sub for sub in layer._flatten_layers(include_self=False)}

    def call(sub: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten((args, kwargs)))
        if stand_ins.way.constants and not symbolic and id(sub) in inside and sub.weights:
            args, kwargs = tree.map_structure(stand_ins.of_constant, (args, kwargs))
        try:
            return stock(sub, *args, **kwargs)
        except Exception as error:
            if not symbolic or id(sub) not in inside or is_own(type(sub)):
                raise
            return _called_through(sub, args, kwargs, stand_ins, training, error)

    keras.layers.Layer.__call__ = call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = stock


def _called_through(
    sub: Any, args: Any, kwargs: dict[str, Any], stand_ins: StandIns, training: bool, error: Exception
) -> Any:
    """What a layer inside gives, its calls and operations noted as those of the layer around it."""
    bound = sub._call_signature.bind(*args, **kwargs)
    if "training" in sub._call_signature.parameters and bound.arguments.get("training") is None:
        bound.arguments["training"] = training
    with variables_replaced(sub, stand_ins):
        try:
            return sub.call(*bound.args, **bound.kwargs)
        except Exception:  # noqa: BLE001 - what Keras had to say of the call is what counts
            raise error from None


@contextmanager
def _calling(layer: keras.layers.Layer, training: bool) -> Iterator[None]:
    """The state in which layers find ``training`` where their caller does not say."""
    layer._get_call_context().set_value("training", training)
    try:
        yield
    finally:
        layer._maybe_reset_call_context()


@contextmanager
def _known_sizes() -> Iterator[None]:
    """EinsumDense calls sizes unknown that its input has: an attention layer could not make its causal mask."""
    stock = keras.layers.EinsumDense.compute_output_shape

    def shape_of(layer: Any, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        found = stock(layer, input_shape)
        if "..." in layer.equation:
            return found
        given, output = (layer.equation.split(",")[0].strip(), layer.equation.split("->")[1].strip())
        sizes = dict(zip(given, input_shape, strict=True))
        return tuple(sizes.get(letter) if size is None else size for letter, size in zip(output, found, strict=True))

    keras.layers.EinsumDense.compute_output_shape = shape_of
    try:
        yield
    finally:
        keras.layers.EinsumDense.compute_output_shape = stock


@contextmanager
def _arrays_give_way() -> Iterator[None]:
    """``np.sqrt(2) * x`` as ``x * np.sqrt(2)``, as with a tensor of values: NumPy leaves it to the tensor."""
    keras.KerasTensor.__array_ufunc__ = None
    try:
        yield
    finally:
        del keras.KerasTensor.__array_ufunc__


@contextmanager
def _activations_take_symbols() -> Iterator[None]:
    """Some of keras.activations make a tensor of values first, which a symbol never is; mish has no operation."""
    own = keras.activations.mish.__globals__
    backend, mish = own["backend"], own["Mish"]
    to_tensor, of_values = backend.convert_to_tensor, mish.static_call

    def convert(x: Any, *args: Any, **kwargs: Any) -> Any:
        return x if isinstance(x, keras.KerasTensor) else to_tensor(x, *args, **kwargs)

    def of_any(x: Any) -> Any:
        symbolic = isinstance(x, keras.KerasTensor)
        return keras.layers.Activation("mish", dtype=x.dtype, name="mish")(x) if symbolic else of_values(x)

    backend.convert_to_tensor, mish.static_call = convert, staticmethod(of_any)
    try:
        yield
    finally:
        backend.convert_to_tensor, mish.static_call = to_tensor, staticmethod(of_values)
