"""Narrow ResNet: a backbone of few channels, which learns from hundreds of images on a CPU in minutes.

Whole convolutions instead of depthwise ones: of the same cost on a CPU, they learn in fewer steps.
"""

from __future__ import annotations

import keras
from keras import layers

# Channels of a level, in widths, each behind two residual blocks (arXiv 1512.03385, section 4.1, 18 layers).
LEVELS = {3: 3, 4: 6, 5: 10}
ACTIVATION = "silu"


def narrow_resnet(image: keras.KerasTensor, width: int = 16) -> keras.Model:
    """Images -> feature maps of strides 8, 16 and 32 with 3, 6 and 10 times ``width`` channels.

    Args:
        image: the input.
        width: channels of the first convolution, of stride 2; those of stride 4 have half as many again.
    """
    quarter = width + width // 2
    x = _activated(_conv_norm(image, width, 3, 2, "stem"), "stem")
    x = _activated(_conv_norm(x, quarter, 3, 2, "level2_conv"), "level2_conv")
    x = _block(x, quarter, 1, "level2_block")
    maps = []
    for level, factor in LEVELS.items():
        x = _block(x, factor * width, 2, f"level{level}_block1")
        x = _block(x, factor * width, 1, f"level{level}_block2")
        maps.append(x)
    return keras.Model(image, maps, name="narrow_resnet")


def _block(x: keras.KerasTensor, channels: int, strides: int, name: str) -> keras.KerasTensor:
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""
    shortcut = x
    if strides != 1 or x.shape[-1] != channels:
        shortcut = _conv_norm(x, channels, 1, strides, f"{name}_shortcut")
    x = _activated(_conv_norm(x, channels, 3, strides, f"{name}_conv1"), f"{name}_conv1")
    x = _conv_norm(x, channels, 3, 1, f"{name}_conv2")
    return _activated(layers.Add(name=f"{name}_add")([x, shortcut]), name)


def _conv_norm(x: keras.KerasTensor, channels: int, size: int, strides: int, name: str) -> keras.KerasTensor:
    # No bias: BatchNorm has one.
    x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def _activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.Activation(ACTIVATION, name=f"{name}_act")(x)
