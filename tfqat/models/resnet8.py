"""ResNet8: a CIFAR-style residual net of three stages with one block each."""

from __future__ import annotations

import keras
from keras import layers

# The three-stage net of He et al. (arXiv 1512.03385, section 4.2) with n = 1 and projection shortcuts, as the
# MLPerf Tiny image classification benchmark uses it.
STAGES = ((16, 1), (32, 2), (64, 2))


def resnet8(
    input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, dropout: float = 0.0, name: str = "resnet8"
) -> keras.Model:
    """Images ``input_shape`` -> class probabilities ``(batch, num_classes)``.

    Args:
        input_shape: height and width of at least 4, any number of channels.
        num_classes: classes.
        width: factor on the channels of all stages (16, 32, 64).
        dropout: share of the pooled features dropped in training.
        name: the model's name.
    """
    image = keras.Input(input_shape, name="image")
    x = _conv_norm(image, _channels(16, width), 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for index, (channels, strides) in enumerate(STAGES, start=1):
        x = _block(x, _channels(channels, width), strides, f"stage{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name=name)


def _block(x: keras.KerasTensor, channels: int, strides: int, name: str) -> keras.KerasTensor:
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""
    shortcut = x
    if strides != 1 or x.shape[-1] != channels:
        shortcut = _conv_norm(x, channels, 1, strides, f"{name}_shortcut")
    x = _conv_norm(x, channels, 3, strides, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _conv_norm(x, channels, 3, 1, f"{name}_conv2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _conv_norm(x: keras.KerasTensor, channels: int, size: int, strides: int, name: str) -> keras.KerasTensor:
    # No bias: BatchNorm has one.
    conv = layers.Conv2D(
        channels, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(conv(x))


def _channels(channels: int, width: float) -> int:
    return max(1, round(channels * width))
