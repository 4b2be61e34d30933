"""Integer biases: on their grid, and in int32."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.rewrite import finalize as finalize_module
from tfqat.targets import load_target


@pytest.fixture
def integer_sima(monkeypatch):
    """The target sima, with integer biases."""
    target = replace(load_target("sima"), integer_bias=True)
    monkeypatch.setattr(finalize_module, "load_target", lambda *_: target)


def finalized(kernel_scale=1.0, pixels=1.0):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm", beta_initializer="normal", gamma_initializer="normal")(x)
    x = layers.MaxPooling2D(2, name="pool")(layers.ReLU(name="act")(x))
    x = layers.Conv2D(4, 3, bias_initializer="normal", name="second")(x)
    model = keras.Model(image, layers.Dense(2, name="head")(layers.Flatten(name="flat")(layers.ReLU(name="last")(x))))
    kernel, bias = model.get_layer("second").get_weights()
    kernel[..., 0] *= kernel_scale
    model.get_layer("second").set_weights([kernel, bias])
    qat = tfqat.prepare(model, target="sima")
    data = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32") * np.float32(pixels)
    tfqat.calibrate(qat, data, method="minmax")
    return qat, tfqat.finalize(qat), data


@pytest.mark.usefixtures("integer_sima")
def test_biases_are_whole_multiples_of_input_scale_times_kernel_scale():
    qat, final, data = finalized()
    for name, quantizer in {"conv": "image>quantizer", "second": "act>quantizer"}.items():
        layer = final.get_layer(name)
        step = float(final.get_layer(quantizer).encoding().scale) * np.array(layer.kernel_scale, np.float64)
        integers = np.array(layer.bias) / step
        assert np.allclose(integers, np.rint(integers), rtol=1e-7, atol=1e-3)  # float32 holds no more
        assert np.abs(integers).max() > 100
    assert np.allclose(final(data), qat(data, training=False), atol=1e-2)


def test_without_the_wish_they_stay():
    _, final, _ = finalized()
    layer = final.get_layer("second")
    step = float(final.get_layer("act>quantizer").encoding().scale) * np.array(layer.kernel_scale, np.float64)
    assert np.abs(np.array(layer.bias) / step - np.rint(np.array(layer.bias) / step)).max() > 1e-2


@pytest.mark.usefixtures("integer_sima")
def test_a_kernel_that_is_almost_zero_gets_a_scale_that_holds_the_bias():
    qat, final, data = finalized(kernel_scale=1e-12)
    layer = final.get_layer("second")
    step = float(final.get_layer("act>quantizer").encoding().scale) * np.array(layer.kernel_scale, np.float64)
    integers = np.rint(np.array(layer.bias) / step)
    assert np.abs(integers).max() < 2**31
    assert np.allclose(final(data), qat(data, training=False), atol=1e-2)


@pytest.mark.usefixtures("integer_sima")
def test_a_dead_input_stays_dead_and_its_readers_bias_fits_a_usable_scale():
    _, final, _ = finalized(pixels=0.0)
    assert final.get_layer("image>quantizer").encoding().dead
    layer = final.get_layer("conv")
    integers = np.array(layer.bias) / (2.0**-7 * np.array(layer.kernel_scale, np.float64))
    assert np.allclose(integers, np.rint(integers), rtol=1e-7, atol=1e-3)
    assert 0 < np.abs(integers).max() < 2**31
