"""Head: what reads classes, or boxes, from the feature maps of all levels with the same convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import initializers, layers

from tfqat.models.efficientdet.bifpn import LEVELS

# The share of anchors that an untrained class head calls an object (arXiv 1708.02002, section 4.1).
PRIOR = 0.01


def head(maps: Sequence[Any], depth: int, anchors: int, numbers: int, activation: str, name: str) -> Any:
    """Numbers of each anchor of all levels, ``(batch, anchors of all levels, numbers)``.

    The convolutions are shared by the levels; each level has BatchNorms of its own, since its statistics differ.

    Args:
        maps: the levels' feature maps, from fine to coarse, of one width.
        depth: convolutions before the last.
        anchors: of each place.
        numbers: of each anchor.
        activation: after each convolution but the last.
        name: ``class`` or ``box``.
    """
    width = maps[0].shape[-1]
    shared = [layers.SeparableConv2D(width, 3, padding="same", name=f"{name}_conv{n}") for n in range(depth)]
    last = layers.SeparableConv2D(
        anchors * numbers, 3, padding="same", bias_initializer=_first_bias(name), name=f"{name}_last"
    )
    found = []
    for level, x in zip(LEVELS, maps, strict=True):
        for n, conv in enumerate(shared):
            x = layers.BatchNormalization(name=f"{name}_bn{n}_level{level}")(conv(x))
            x = layers.Activation(activation, name=f"{name}_act{n}_level{level}")(x)
        found.append(layers.Reshape((-1, numbers), name=f"{name}_level{level}")(last(x)))
    return found


def _first_bias(name: str) -> initializers.Initializer:
    return initializers.Constant(-math.log((1 - PRIOR) / PRIOR) if name == "class" else 0.0)
