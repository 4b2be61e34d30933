"""Stand-ins: symbolic tensors in place of those of a call, and of the variables of the called layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from tfqat.view.batch import BATCH

# Attributes by which Keras and TensorFlow keep book of a layer's variables; ``call`` reads none of them.
_BOOKS = re.compile("_self_.*|_tracker|_trainable_variables|_non_trainable_variables|_layers|_metrics|_seed_generators")


@dataclass(frozen=True)
class Way:
    """How to run a ``call``: with which size in place of an unknown batch, and whether constants that the layer keeps
    as attributes, or calls layers inside on (positions, for an Embedding), are symbolic tensors, too."""

    batch: int | None = None
    constants: bool = False


# Ways to try, the plainest first.
WAYS = (Way(), Way(BATCH), Way(constants=True), Way(BATCH, constants=True))


def mask_of(tensor: Any) -> Any:
    """The mask that travels with a symbolic tensor, None where there is none."""
    return getattr(tensor, "_keras_mask", None)


def mask_places(layer: keras.layers.Layer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Argument of ``call`` -> the tensors whose masks Keras fills in there, where the caller gives none."""
    parameters = layer._call_signature.parameters
    tensors = {
        name: value
        for name, value in arguments.items()
        if any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten(value))
    }
    if len(tensors) == 1:
        places = {"mask": next(iter(tensors.values()))}
    else:
        places = {f"{name}_mask": value for name, value in tensors.items()}
    return {name: value for name, value in places.items() if name in parameters and arguments.get(name) is None}


class _StandIn(keras.KerasTensor):
    """A symbolic tensor that takes ``x[:n]`` as arrays do; Keras' own wants ``x[:n, ...]``."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((key,) if isinstance(key, slice) else key)


class StandIns:
    """Symbolic tensors in place of those of a call and of the variables of the called layer."""

    def __init__(self, layer: keras.layers.Layer, way: Way) -> None:
        self.way = way
        # Keras casts what a layer is called with; a model leaves that to its layers.
        self.dtype = layer.compute_dtype if layer._convert_input_args and layer.autocast else None
        self.compute_dtype = layer.compute_dtype
        self.tensors: dict[int, tuple[Any, Any]] = {}
        self.weights: dict[int, tuple[Any, Any]] = {}

    def of_tensor(self, leaf: Any) -> Any:
        if not isinstance(leaf, keras.KerasTensor):
            return leaf
        if id(leaf) not in self.tensors:
            dtype = self.dtype if self.dtype and keras.backend.is_float_dtype(leaf.dtype) else leaf.dtype
            shape = (self.way.batch, *leaf.shape[1:]) if leaf.shape and leaf.shape[0] is None else leaf.shape
            self.tensors[id(leaf)] = (leaf, _StandIn(shape, dtype))
        new = self.tensors[id(leaf)][1]
        if mask_of(leaf) is not None and mask_of(new) is None:
            new._keras_mask = self.of_tensor(mask_of(leaf))
        return new

    def is_weight(self, leaf: Any) -> bool:
        """Whether what a layer keeps as an attribute gets a stand-in."""
        return isinstance(leaf, keras.Variable) or (self.way.constants and keras.ops.is_tensor(leaf))

    def of_weight(self, leaf: Any) -> Any:
        if not self.is_weight(leaf):
            return leaf
        if id(leaf) not in self.weights:
            variable = (
                leaf if isinstance(leaf, keras.Variable) else keras.Variable(leaf, trainable=False, dtype=leaf.dtype)
            )
            floating = keras.backend.is_float_dtype(variable.dtype)
            dtype = self.compute_dtype if floating and self.compute_dtype else variable.dtype
            self.weights[id(leaf)] = (_StandIn(tuple(leaf.shape), dtype), variable)
        return self.weights[id(leaf)][0]

    def of_constant(self, leaf: Any) -> Any:
        if not keras.ops.is_tensor(leaf) and not isinstance(leaf, np.ndarray):
            return leaf
        value = keras.ops.convert_to_tensor(leaf)
        variable = keras.Variable(value, trainable=False, dtype=value.dtype, name="constant")
        return self.of_weight(variable)


@contextmanager
def variables_replaced(layer: keras.layers.Layer, stand_ins: StandIns) -> Iterator[None]:
    """The layer's own variables as symbolic tensors, so that what is done to them is seen, too."""
    attributes = vars(layer)
    kept = {
        name: value
        for name, value in attributes.items()
        if not _BOOKS.fullmatch(name) and any(map(stand_ins.is_weight, _leaves(value)))
    }
    attributes.update({name: _mapped(stand_ins.of_weight, value) for name, value in kept.items()})
    try:
        yield
    finally:
        attributes.update(kept)


def _leaves(value: Any) -> Iterator[Any]:
    """The leaves of an attribute; keras.tree would sort the keys of its dictionaries, which may be anything."""
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    else:
        yield value


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """An attribute with ``function`` of its leaves."""
    if isinstance(value, Mapping):
        return {key: _mapped(function, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return function(value)
