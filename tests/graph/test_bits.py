"""Bits that rules ask for: in the placement, in training, and in every file that can hold them."""

import json

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper

import tfqat
from tfqat.errors import TfqatError
from tfqat.rewrite.model import kernel_layers

IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")


def net():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu1")(layers.Conv2D(8, 3, padding="same", name="conv1")(image))
    y = layers.ReLU(name="relu2")(layers.Conv2D(8, 3, padding="same", name="conv2")(x))
    z = layers.Concatenate(name="both")([x, y])
    z = layers.Dense(6, activation="relu", name="dense")(layers.GlobalAveragePooling2D(name="pool")(z))
    return keras.Model(image, layers.Dense(3, name="head")(z))


def prepared(rules, target="tensorrt", **options):
    qat = tfqat.prepare(net(), target, rules=rules, **options)
    tfqat.calibrate(qat, [IMAGES])
    return qat


def test_the_first_rule_on_a_name_decides_each_question():
    rules = [
        {"match": "conv2", "weight_bits": 3},
        {"match": "conv*", "weight_bits": 4, "activation_bits": 6},
        {"match": "pool", "activation_bits": 7},
        {"match": "image", "activation_bits": 5},
    ]
    plan = tfqat.placement(net(), rules=rules)
    assert {name: scheme.bits for name, scheme in plan.weights.items()} == {"conv1": 4, "conv2": 3, "dense": 8}
    bits = {name: scheme.bits for name, scheme in plan.activations.items()}
    # The two convolutions meet in one range; what leaves their blocks is behind the activations.
    assert bits == {"image": 5, "relu1": 6, "relu2": 6, "pool": 7, "dense/relu": 8}
    assert "int8, kernel 3 bits" in str(plan)
    assert "quantized, 6 bits, tied" in str(plan)


def test_one_member_of_a_group_speaks_for_all_and_two_must_agree():
    plan = tfqat.placement(net(), rules=[{"match": "relu2", "activation_bits": 4}])
    assert plan.activations["relu1"].bits == plan.activations["relu2"].bits == 4
    rules = [{"match": "relu1", "activation_bits": 5}, {"match": "relu2", "activation_bits": 4}]
    with pytest.raises(TfqatError, match=r"'relu1' and 'relu2' ask for 5 and 4 bits .* share one range"):
        tfqat.placement(net(), rules=rules)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"match": "conv1", "weight_bits": 1}, "whole number from 2 to 8, received 1"),
        ({"match": "conv1", "weight_bits": True}, "whole number from 2 to 8, received True"),
        ({"match": "conv1", "activation_bits": 4.0}, "whole number from 2 to 8, received 4.0"),
        ({"match": "pool", "weight_bits": 4}, "no quantized kernel is covered"),
        ({"match": "head", "activation_bits": 4}, "no quantized tensor is covered"),
    ],
)
def test_what_cannot_be_is_an_error(rule, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.placement(net(), rules=[rule])


def test_a_range_that_the_device_prescribes_keeps_its_bits():
    with pytest.raises(TfqatError, match="the device prescribes"):
        tfqat.placement(
            keras.Model(i := keras.Input((4,)), layers.Dense(3, activation="softmax", name="head")(layers.Dense(4)(i))),
            "tflite",
            rules=[{"match": "head*", "activation_bits": 4}],
        )


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_every_form_lies_on_the_grid(ranges, bits, tmp_path):
    qat = prepared([{"match": "*", "weight_bits": bits, "activation_bits": bits}], ranges=ranges)
    qat.compile("adam", "mse")
    qat.fit(IMAGES, np.ones((32, 3)), verbose=0)
    qat.save(tmp_path / "qat.keras")
    loaded = tfqat.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(loaded(IMAGES), qat(IMAGES))
    final = tfqat.finalize(loaded)
    np.testing.assert_allclose(final(IMAGES), qat(IMAGES), rtol=1e-4, atol=1e-4)
    for layer in kernel_layers(final):
        channels = np.array(layer.kernel).reshape(-1, layer.kernel.shape[-1]).T
        assert all(len(np.unique(np.round(channel, 6))) <= 2**bits - 1 for channel in channels)


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_of_few_bits_go_into_every_file_of_tensorrt_as_they_were_trained(bits, tmp_path):
    qat = prepared([{"match": "*", "weight_bits": bits}])
    tfqat.export(qat, tmp_path)
    assert tfqat.verify(qat, tmp_path, IMAGES).passed
    trained = {layer.name: np.array(layer.kernel) for layer in kernel_layers(tfqat.finalize(qat))}
    held = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    kernel = next(array for array in held.values() if array.shape == (8, 8, 3, 3))
    np.testing.assert_allclose(np.transpose(kernel, (2, 3, 1, 0)), trained["conv2"], rtol=1e-6)
    report = json.loads((tmp_path / "manifest.json").read_text())["report"]
    # TensorRT's own scale is max|w| / 127: -1, 0 and 1 are on it, seven steps are not.
    assert report["requantization_steps"].keys() == (set() if bits == 2 else {"conv1", "conv2", "dense"})


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla", "tflite"])
def test_activations_of_few_bits_are_refused_where_the_device_has_none(target, tmp_path):
    qat = prepared([{"match": "conv1", "activation_bits": 4}], target)
    with pytest.raises(TfqatError, match=r"relu1 \(4\)|bits=4"):
        tfqat.export(qat, tmp_path / "export", calibration=[IMAGES])
    assert not (tmp_path / "export").exists()


def test_activations_of_few_bits_are_clipped_in_the_onnx_of_others(tmp_path):
    qat = prepared([{"match": "conv1", "activation_bits": 4}], "sima")
    tfqat.export(qat, tmp_path)
    assert tfqat.verify(qat, tmp_path, IMAGES * 3).passed
