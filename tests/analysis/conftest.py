"""A small model with a residual, a depthwise convolution and a pooling, prepared and calibrated; and data."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfqat


def net() -> keras.Model:
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = layers.ReLU(name="join_relu")(layers.Add(name="join")([y, x]))
    x = layers.ReLU(name="depthwise_relu")(layers.DepthwiseConv2D(3, name="depthwise")(x))
    x = layers.ReLU(name="last_relu")(layers.Conv2D(12, 3, strides=2, name="last")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(5, name="head")(x), name="small")


@pytest.fixture(scope="module")
def float_model(images) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = net()
    rng = np.random.default_rng(0)
    for layer in model.layers:  # numbers that no default has
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    kernel, bias = model.get_layer("head").get_weights()
    means = model.predict(images, verbose=0).mean(axis=0)
    model.get_layer("head").set_weights([kernel, bias - means])  # each class is somebody's
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(60, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def labels(float_model, images) -> np.ndarray:
    """What the float model says, with a tenth of it wrong."""
    found = float_model.predict(images, verbose=0).argmax(-1)
    found[::10] += 1
    return found % 5


@pytest.fixture(scope="module")
def qat(float_model, images):
    model = tfqat.prepare(float_model)
    tfqat.calibrate(model, images, method="minmax", batches=2)
    return model
