"""Small ResNet: a backbone for few images and small machines, trained from random weights (arXiv 1512.03385)."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

NAME = "small_resnet"
STEM, FIRST, STAGES = 16, 24, (48, 96, 160)


def small_resnet(image: Any, activation: str) -> keras.Model:
    """Feature maps of strides 8, 16 and 32 with 48, 96 and 160 channels; 1.2 M parameters, half of them in the last."""
    x = _convolved(image, STEM, 2, activation, "stem")
    x = _convolved(x, FIRST, 2, activation, "stem2")
    x = _block(x, FIRST, 1, activation, "stage1a")
    maps = []
    for number, width in enumerate(STAGES, 2):
        x = _block(x, width, 2, activation, f"stage{number}a")
        x = _block(x, width, 1, activation, f"stage{number}b")
        maps.append(x)
    return keras.Model(image, maps, name=NAME)


def _block(x: Any, width: int, stride: int, activation: str, name: str) -> Any:
    """Two 3x3 convolutions beside a shortcut."""
    y = _convolved(x, width, stride, activation, f"{name}_1")
    y = _convolved(y, width, 1, None, f"{name}_2")
    if stride > 1 or x.shape[-1] != width:
        x = _convolved(x, width, stride, None, f"{name}_shortcut", size=1)
    return layers.Activation(activation, name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def _convolved(x: Any, width: int, stride: int, activation: str | None, name: str, size: int = 3) -> Any:
    x = layers.Conv2D(width, size, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return x if activation is None else layers.Activation(activation, name=f"{name}_act")(x)
