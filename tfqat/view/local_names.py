"""Local names: layers that Keras has numbered, by numbers of the layer that they are in."""

from __future__ import annotations

import re
from typing import Any

import keras

from tfqat.graph.kinds import snake_case


def is_auto_named(operation: Any) -> bool:
    """Whether Keras made the name, with a number from its global counters."""
    return re.fullmatch(rf"{re.escape(snake_case(type(operation).__name__))}(_\d+)?", operation.name) is not None


def local_names(layer: keras.layers.Layer) -> dict[int, str]:
    """Id of a layer inside -> its name with a number of the layer's own in place of Keras' global one."""
    inner = [sub for sub in layer._flatten_layers(include_self=False) if is_auto_named(sub)]
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for sub in sorted(inner, key=_auto_number):
        stem = snake_case(type(sub).__name__)
        counts[stem] = counts.get(stem, -1) + 1
        names[id(sub)] = f"{stem}_{counts[stem]}" if counts[stem] else stem
    return names


def _auto_number(layer: keras.layers.Layer) -> int:
    number = layer.name.removeprefix(snake_case(type(layer).__name__)).lstrip("_")
    return int(number) if number else 0
