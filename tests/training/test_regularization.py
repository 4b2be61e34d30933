"""Regularization: L2 of the kernels is in the loss that training sees, and in no file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.jobs.train import train
from tfqat.models.load import load_model
from tfqat.training.regularization import regularize

L2 = 0.02


def net(input_shape=(8, 8, 1), num_classes=10, **conv):
    """Each kind of kernel, and weights that are none."""
    image = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, name="conv", **conv)(image)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(x)))


def squares(model, layer_names):
    """Of the kernels in those layers, summed in float64."""
    kernels = [
        variable
        for layer in model.layers
        if layer.name in layer_names
        for variable in layer.variables
        if variable.name.endswith("kernel")
    ]
    return len(kernels), sum(np.square(np.asarray(kernel, np.float64)).sum() for kernel in kernels)


def penalty(model):
    return float(sum(model.losses, 0.0))


def test_the_term_of_a_float_model_and_of_the_one_prepared_from_it():
    keras.utils.set_random_seed(0)
    model = net()
    model.get_layer("bn").gamma.assign([3.0] * 4)  # would be seen in the sum
    model.get_layer("depthwise").trainable = False
    regularize(model, L2)
    count, total = squares(model, ("conv", "separable", "head"))
    assert count == 4
    assert penalty(model) == pytest.approx(L2 / 2 * total, rel=1e-6)
    regularize(model, L2)  # as a recovery does
    assert penalty(model) == pytest.approx(L2 / 2 * total, rel=1e-6)
    qat = tfqat.prepare(model, ranges="learned")
    assert penalty(qat) == 0
    regularize(qat, L2)
    # The separable convolution is two there; learned ranges and kernel scales are trained, but are no kernels.
    own = [variable for variable in qat.trainable_variables if variable.name.endswith("kernel")]
    assert len(own) == 4
    assert len(qat.trainable_variables) > 4 + 5
    expected = sum(np.square(np.asarray(kernel, np.float64)).sum() for kernel in own)
    assert expected == pytest.approx(total, rel=1e-6)
    assert penalty(qat) == pytest.approx(L2 / 2 * expected, rel=1e-6)


def test_the_loss_that_a_step_sees():
    keras.utils.set_random_seed(0)
    model, x, y = net(), np.random.default_rng(0).random((8, 8, 8, 1)), np.arange(8)
    regularize(model, L2)
    before = [np.asarray(weight, np.float64) for weight in model.get_layer("head").get_weights()]
    _, total = squares(model, ("conv", "depthwise", "separable", "head"))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", jit_compile=False)
    given = np.asarray(model(x, training=True), np.float64)
    expected = -np.log(given[np.arange(8), y]).mean() + L2 / 2 * total
    assert model.train_on_batch(x, y) == pytest.approx(expected, rel=1e-5)
    # d(l2 / 2 * k^2) = l2 * k, beside a loss whose gradient is switched off by its weight.
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", loss_weights=0.0, jit_compile=False)
    model.train_on_batch(x, y)
    kernel, bias = (np.asarray(weight, np.float64) for weight in model.get_layer("head").get_weights())
    np.testing.assert_allclose(kernel, before[0] * (1 - L2), rtol=1e-5)
    np.testing.assert_array_equal(bias, before[1])


def test_a_models_own_regularizers_stay():
    model = net(kernel_regularizer=keras.regularizers.L2(0.5))
    own = penalty(model)
    assert own == pytest.approx(0.5 * squares(model, ("conv",))[1], rel=1e-6)
    regularize(model, 0.0)
    assert penalty(model) == pytest.approx(own)
    with pytest.raises(TfqatError, match=r"l2 is 0\.02, but 'conv/kernel' has a regularizer of its own"):
        regularize(model, L2)


def test_it_is_trained_with_and_in_no_file(make_spec, user_module):
    """With a rate of almost 0 the weights stay, so that the loss told is that of the weights saved."""
    user_module.net = net
    told, models = {}, {}
    for l2 in (0.0, L2):
        spec = make_spec(l2=l2, optimizer={"learning_rate": 1e-9, "momentum": 0.0})
        train(spec, restart=True)
        results = Path(spec.results_dir)
        lines = [json.loads(line) for line in (results / "status.jsonl").read_text().splitlines()]
        told[l2] = {line["phase"]: line["kpi"]["loss"] for line in lines if line["status"] == "RUNNING"}
        for phase in ("float", "qat"):
            with zipfile.ZipFile(results / f"{phase}.keras") as file:
                assert "L2" not in file.read("config.json").decode()
            models[l2, phase] = load_model(results / f"{phase}.keras")
            assert penalty(models[l2, phase]) == 0
    for phase in ("float", "qat"):
        kernels = [v for v in models[L2, phase].trainable_variables if v.name.endswith("kernel")]
        assert len(kernels) == 5
        term = L2 / 2 * sum(np.square(np.asarray(kernel, np.float64)).sum() for kernel in kernels)
        assert told[L2][phase] - told[0.0][phase] == pytest.approx(term, rel=1e-3)
