"""A small EfficientDet goes the whole way: prepare, calibrate, train, save, load, finalize, export, verify."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.models.efficientdet.fusion import WeightedSum
from tfqat.models.efficientdet.model import efficientdet


def backbone(activation):
    """Two convolutions a stride, so that levels 4 and 5 have projections and level 3 is as wide as the BiFPN."""
    x = image = keras.Input((128, 128, 3), name="image")
    x = layers.Rescaling(1 / 255, name="scale")(x)
    for number, width in enumerate((4, 4, 8, 12, 16), 1):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.Activation(activation, name=f"act{number}")(x)
    return keras.Model(image, x, name="tiny")


def alive(model, x):
    """The model with statistics of ``x``, uneven fusion weights and kernels of outputs: no signal dies on its way."""
    generator = np.random.default_rng(1)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.5
        norm.gamma.assign(generator.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(generator.uniform(-0.5, 0.5, norm.beta.shape))
    for layer in model.layers:
        if isinstance(layer, WeightedSum):
            layer.shares.assign(generator.uniform(-0.2, 8.0, layer.shares.shape))
    for name in ("class_last", "box_last"):
        kernel = model.get_layer(name).pointwise_kernel
        kernel.assign(10 * kernel)
    for _ in range(4):
        model(x, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def images(count=3):
    # Gratings of different pitch and colour, which the levels see differently.
    generator = np.random.default_rng(0)
    ramp = np.arange(128, dtype=np.float32)
    waves = [np.sin(ramp[:, None] * a + ramp[None, :] * b) for a, b in generator.uniform(0.02, 0.6, (3 * count, 2))]
    noise = generator.normal(size=(count, 128, 128, 3))
    return np.clip(
        128 + 80 * np.stack(waves, -1).reshape(128, 128, count, 3).transpose(2, 0, 1, 3) + 20 * noise, 0, 255
    )


def step(model, x):
    """One step of gradient descent; whether each variable has a gradient."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = sum(keras.ops.mean(keras.ops.square(y)) for y in model(x, training=True).values())
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            variable.assign_sub(0.01 * gradient)
    return [variable.path for variable, g in zip(variables, gradients, strict=True) if g is None]


CASES = [
    ("tensorrt", "silu", "efficientdet_d0"),
    ("sima", "relu6", "efficientdet_d7"),
    ("tflite", "silu", "efficientdet_d0"),
]


@pytest.mark.parametrize(("target", "activation", "name"), CASES, ids=[case[0] for case in CASES])
def test_the_whole_way(target, activation, name, tmp_path):
    keras.utils.set_random_seed(0)
    x = images().astype(np.float32)
    sizes = {"width": 8, "depth": 1, "head_depth": 2}
    model = efficientdet(name, (128, 128, 3), 3, activation, backbone=backbone(activation), **sizes)
    qat = tfqat.prepare(alive(model, x), target, relu6=())
    tfqat.calibrate(qat, [x])
    assert step(qat, x) == []
    qat.save(tmp_path / "qat.keras")
    loaded = tfqat.load_model(tmp_path / "qat.keras")
    trained, final = qat(x, training=False), tfqat.finalize(loaded)(x, training=False)
    for key in ("class_logits", "box_regression"):
        values = np.asarray(trained[key])
        assert values.std(axis=0).mean() > 0.05, "all images look alike to it"
        np.testing.assert_array_equal(values, np.asarray(loaded(x, training=False)[key]))
        # Folding moves a value over the edge of its step here and there, and a deep net makes more of it; the kernels
        # of another level would give what has nothing to do with the image.
        assert np.linalg.norm(np.asarray(final[key]) - values) < 0.5 * np.linalg.norm(values - values.mean(axis=0))
    tfqat.export(loaded, tmp_path)
    report = tfqat.verify(loaded, tmp_path, x)
    assert report.passed, report
    # End to end, float ONNX + cache is not judged where the device rounds inside of a SiLU; its blocks are.
    assert report.rows[0].judged, report
    assert all(row.blocks for row in report.rows), report
