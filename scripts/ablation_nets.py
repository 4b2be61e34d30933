"""Ablation nets: small networks of the two common families, and their twins in tf_keras for TFMOT."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tfqat.models.resnet8 import resnet8

# Channels, blocks, stride of the first block; each block widens its input EXPANSION times (arXiv:1801.04381, table 2,
# cut to what images of 28 to 32 pixels and two cores need).
STAGES = ((16, 1, 1), (24, 2, 2), (32, 2, 2), (64, 1, 1))
STEM, HEAD, EXPANSION = 16, 128, 4


def mobilenet(input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Inverted residuals with depthwise convolutions; ReLU where the paper has ReLU6, so that CLE has what it needs."""
    image = keras.Input(input_shape, name="image")
    x = _conv(image, STEM, 3, 2, "stem")
    for stage, (channels, blocks, strides) in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            x = _inverted_residual(x, channels, strides if block == 1 else 1, f"stage{stage}_block{block}")
    x = _conv(x, HEAD, 1, 1, "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name="mobilenet")


def _inverted_residual(x: Any, channels: int, strides: int, name: str) -> Any:
    inside = _conv(x, x.shape[-1] * EXPANSION, 1, 1, f"{name}_expand")
    inside = layers.DepthwiseConv2D(3, strides, "same", use_bias=False, name=f"{name}_depthwise")(inside)
    inside = layers.BatchNormalization(momentum=0.9, name=f"{name}_depthwise_bn")(inside)
    inside = layers.ReLU(name=f"{name}_depthwise_relu")(inside)
    inside = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(inside)
    inside = layers.BatchNormalization(momentum=0.9, name=f"{name}_project_bn")(inside)
    if strides == 1 and x.shape[-1] == channels:
        return layers.Add(name=f"{name}_add")([inside, x])
    return inside


def _conv(x: Any, channels: int, size: int, strides: int, name: str) -> Any:
    x = layers.Conv2D(channels, size, strides, "same", use_bias=False, name=name)(x)
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x))


NETS = {"mobilenet": mobilenet, "resnet8": resnet8}
# Arguments of each layer that make it what it is; the rest of a Keras 3 config means nothing to tf_keras.
ARGUMENTS = {
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "use_bias"),
    "BatchNormalization": ("momentum", "epsilon"),
    "Dense": ("units",),
    "ReLU": (),
    "Add": (),
    "GlobalAveragePooling2D": (),
    "Softmax": (),
}


def twin(model: keras.Model) -> Any:
    """The same network in tf_keras, with the same weights."""
    import tf_keras

    image = tf_keras.Input(model.input_shape[1:], name=model.inputs[0].name)
    tensors = {model.inputs[0].name: image}
    for layer in model.layers[1:]:
        kind, config = type(layer).__name__, layer.get_config()
        made = getattr(tf_keras.layers, kind)(name=layer.name, **{key: config[key] for key in ARGUMENTS[kind]})
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [tensors[tensor.name] for tensor in given]
        tensors[layer.output.name] = made(inputs if len(inputs) > 1 else inputs[0])
        made.set_weights([np.array(weight) for weight in layer.get_weights()])
    return tf_keras.Model(image, tensors[model.outputs[0].name], name=model.name)
