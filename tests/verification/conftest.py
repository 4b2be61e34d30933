"""A small calibrated model with its exported files, made once."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfqat


def small_model() -> keras.Model:
    """Residual Add, pooling, padding, SiLU in a block, squeeze-excite, Dense head."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = layers.ReLU(name="join_relu")(layers.Add(name="join")([x, y]))
    x = layers.ZeroPadding2D(1, name="pad")(layers.MaxPooling2D(name="pool")(x))
    x = layers.DepthwiseConv2D(3, strides=2, bias_initializer="normal", name="depthwise", activation="silu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Multiply(name="scale")([x, gate]))
    return keras.Model(image, layers.Dense(10, name="head")(x), name="small")


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Two kinds, bright and dark, so that classes do not hang on a rounding."""
    kinds = np.where(np.arange(64) % 2, 1.0, -1.0).reshape(-1, 1, 1, 1)
    return (kinds + np.random.default_rng(0).normal(scale=0.5, size=(64, 16, 16, 3))).astype("float32")


@pytest.fixture(scope="session")
def qat(images):
    keras.utils.set_random_seed(1)
    model = tfqat.prepare(small_model())
    tfqat.calibrate(model, tf.data.Dataset.from_tensor_slices(images).batch(32), method="minmax", batches=2)
    return model


@pytest.fixture(scope="session")
def exported(qat, tmp_path_factory):
    """The folder of the exported files."""
    folder = tmp_path_factory.mktemp("export")
    tfqat.export(qat, folder, output_names=["logits"])
    return folder


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the folder, to be spoiled."""
    return shutil.copytree(exported, tmp_path / "export")
