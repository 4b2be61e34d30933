"""Attention call: what Keras' attention layers do past the graph, done by layers while their ``call`` is traced.

A mask over a length that is unknown has no size to be made with, and Attention draws its dropout by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import keras
from keras import layers, ops

from tfqat.view.causal_mask import SeenPlaces

# One for each Attention, so that its calls share it and each trace finds the same.
_DROPOUTS: WeakKeyDictionary[Any, layers.Dropout] = WeakKeyDictionary()


@contextmanager
def by_layers(layer: layers.Layer) -> Iterator[None]:
    """The layer with methods of its own in place of Keras', where it has Keras'."""
    methods = {name: method for name, method in _methods(layer).items() if _is_stock(layer, name)}
    vars(layer).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(layer)[name]


def _is_stock(layer: layers.Layer, name: str) -> bool:
    return getattr(type(layer), name).__module__.split(".")[0] == "keras"


def _methods(layer: layers.Layer) -> Mapping[str, Callable[..., Any]]:
    if isinstance(layer, layers.Attention):
        return _Attention(layer).methods()
    if isinstance(layer, layers.MultiHeadAttention | layers.GroupQueryAttention):
        window = getattr(layer, "_sliding_window", getattr(layer, "sliding_window", None))
        return {
            "_compute_causal_mask": partial(_mask, type(layer)._compute_causal_mask, layer, {"causal": True}),
            "_compute_sliding_window_mask": partial(
                _mask, type(layer)._compute_sliding_window_mask, layer, {"window": window}
            ),
        }
    return {}


def _mask(stock: Callable[..., Any], layer: Any, seen: Mapping[str, Any], query: Any, value: Any = None) -> Any:
    value = query if value is None else value
    if None not in (query.shape[1], value.shape[1]):
        return stock(layer, query, value)
    return SeenPlaces(**seen, name="seen_places")(query, value)


class _Attention:
    """The methods of one Attention, during one call."""

    def __init__(self, layer: layers.Attention) -> None:
        self.layer, self.stock = layer, type(layer)
        self.query: Any = None
        self.key: Any = None

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        found: dict[str, Callable[..., Any]] = {"_calculate_scores": self._scores, "_calculate_score_mask": self._mask}
        return {**found, "_apply_scores": self._apply} if self.layer.dropout else found

    def _scores(self, query: Any, key: Any) -> Any:
        self.query, self.key = query, key
        return self.stock._calculate_scores(self.layer, query, key)

    def _mask(self, scores: Any, v_mask: Any, use_causal_mask: bool) -> Any:
        if not use_causal_mask or None not in scores.shape[-2:]:
            return self.stock._calculate_score_mask(self.layer, scores, v_mask, use_causal_mask)
        # Of what the scores are made of: nothing but the softmax may read the scores.
        causal = SeenPlaces(causal=True, name="seen_places")(self.query, self.key)
        return causal if v_mask is None else ops.logical_and(ops.expand_dims(v_mask, -2), causal)

    def _apply(self, scores: Any, value: Any, scores_mask: Any = None, training: bool = False) -> Any:
        _, weights = self.stock._apply_scores(self.layer, scores, value, scores_mask, False)
        weights = _dropout_of(self.layer)(weights, training=training)
        return ops.matmul(weights, value), weights


def _dropout_of(layer: layers.Attention) -> layers.Dropout:
    if layer not in _DROPOUTS:
        _DROPOUTS[layer] = keras.layers.Dropout(
            layer.dropout, seed=layer.seed, dtype=layer.dtype_policy, name="dropout"
        )
    return _DROPOUTS[layer]
