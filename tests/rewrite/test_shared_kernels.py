"""A convolution that several calls share, each with a BatchNorm of its own: finalize gives each call its kernel."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

import tfqat

GAINS = (0.5, 1.0, 3.0)


def model():
    """One separable convolution for three inputs; the BatchNorms differ in gain, sign and shift."""
    inputs = [keras.Input((4, 4, 2), name=f"x{n}") for n in range(len(GAINS))]
    shared = layers.SeparableConv2D(3, 3, padding="same", name="shared")
    last = layers.Conv2D(2, 1, name="last")
    norms = [layers.BatchNormalization(name=f"bn{n}") for n in range(len(GAINS))]
    found = [last(layers.ReLU(name=f"act{n}")(norms[n](shared(x)))) for n, x in enumerate(inputs)]
    for n, gain in enumerate(GAINS):
        norms[n].set_weights(np.array([[gain, -gain, gain], [n, n, -n], [0.1 * n] * 3, [1.0 + n] * 3]))
    return keras.Model(inputs, layers.Concatenate(axis=1, name="all")(found))


def batches(count):
    return {f"x{n}": np.random.default_rng(n).normal(size=(count, 4, 4, 2)).astype("float32") for n in range(3)}


def test_each_call_has_its_own_folded_kernel_on_one_grid_a_channel():
    keras.utils.set_random_seed(0)
    x = batches(2)
    float_model = model()
    qat = tfqat.prepare(float_model)
    tfqat.calibrate(qat, [x])
    trained = qat.get_layer("shared>pointwise")
    assert len(trained._inbound_nodes) == 3, "one kernel trains for all calls"
    final = tfqat.finalize(qat)
    np.testing.assert_allclose(final(x), qat(x, training=False), rtol=1e-5, atol=1e-6)

    kernel = np.asarray(float_model.get_layer("shared").pointwise_kernel)
    scale = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    rounded = np.rint(kernel / scale) * scale
    names = ("shared>pointwise", "shared>pointwise>1", "shared>pointwise>2")
    for n, name in enumerate(names):
        gain = GAINS[n] * np.array([1, -1, 1]) / np.sqrt(1.0 + n + 1e-3)
        np.testing.assert_allclose(np.asarray(final.get_layer(name).kernel), rounded * gain, rtol=1e-5, atol=1e-7)
    # The depthwise convolution before it has no BatchNorm, and stays one layer.
    assert len(final.get_layer("shared>depthwise")._inbound_nodes) == 3


def test_files_of_it_agree_with_the_trained_model(tmp_path):
    x = batches(4)
    qat = tfqat.prepare(model())
    tfqat.calibrate(qat, [x])
    tfqat.export(qat, tmp_path)
    report = tfqat.verify(qat, tmp_path, x)
    assert report.passed, report
    assert all(row.judged and row.blocks for row in report.rows), report


def test_calls_whose_kernels_are_folded_before_training_are_said_to_part():
    """A dense layer has one scale on TFLite, so each call trains the kernel that its BatchNorm gives it."""
    inputs = [keras.Input((2,), name=f"x{n}") for n in range(2)]
    shared, last = layers.Dense(3, name="shared"), layers.Dense(2, name="last")
    found = [last(layers.ReLU()(layers.BatchNormalization(name=f"bn{n}")(shared(x)))) for n, x in enumerate(inputs)]
    changes = tfqat.placement(keras.Model(inputs, found), "tflite", relu6=()).changes
    parted = [line for line in changes if "weights of their own" in line]
    assert len(parted) == 1
    assert parted[0].startswith("shared: its calls shared, shared/1 ")


def test_a_shared_kernel_with_one_batch_norm_stays_one():
    inputs = [keras.Input((2,), name=f"x{n}") for n in range(2)]
    shared, norm = layers.Dense(3, name="shared"), layers.BatchNormalization(name="bn")
    last = layers.Dense(2, name="last")
    found = [last(layers.ReLU()(norm(shared(x)))) for x in inputs]
    changes = tfqat.placement(keras.Model(inputs, found), "tflite", relu6=()).changes
    assert [line for line in changes if "folded" in line], "it is folded"
    assert not [line for line in changes if "of their own" in line]


def test_calls_with_kernels_of_different_bits_are_said_to_part():
    keras.utils.set_random_seed(0)
    rules = [{"match": "shared/pointwise/1", "weight_bits": 4}]
    qat = tfqat.prepare(model(), rules=rules)
    assert len({id(qat.get_layer(name)) for name in ("shared>pointwise", "shared>pointwise>1")}) == 2
    parted = [line for line in qat.placement.changes if "weights of their own" in line]
    assert len(parted) == 1
    assert "shared/pointwise 8 bits, shared/pointwise/1 4 bits, shared/pointwise/2 8 bits" in parted[0]
