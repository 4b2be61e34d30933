"""Blocks of a cache, judged also where TensorRT rounds what training did not: inside blocks, and kernels anew."""

import hashlib
import re

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper

import tfqat

IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


def exported(activation, rules, folder):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Activation(activation, name="act1")(layers.Conv2D(8, 3, name="conv1")(image))
    x = layers.Activation(activation, name="act2")(layers.Conv2D(8, 3, name="conv2")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    qat = tfqat.prepare(keras.Model(image, layers.Dense(3, name="head")(x)), rules=rules)
    tfqat.calibrate(qat, [IMAGES])
    tfqat.export(qat, folder)
    return qat


CASES = {
    "scales inside blocks": (
        "silu",
        [],
        "rounds 4 tensors inside blocks by calibrated scales, and quantizes 0 kernels",
    ),
    "kernels of 4 bits": (
        "relu",
        [{"match": "conv*", "weight_bits": 4}],
        "rounds 0 tensors .* quantizes 2 kernels anew",
    ),
}


@pytest.mark.parametrize(("activation", "rules", "note"), CASES.values(), ids=CASES)
def test_blocks_are_judged_without_that_and_hold(tmp_path, activation, rules, note):
    qat = exported(activation, rules, tmp_path)
    report = tfqat.verify(qat, tmp_path, [IMAGES])
    assert report.passed, report
    row = next(row for row in report.rows if row.name == "float ONNX + cache")
    assert {score.tensor for score in row.blocks} == {"image", "act1", "act2", "pool"}
    assert not row.judged  # end to end, where the device's own rounding counts
    assert re.search(note, row.note)


@pytest.mark.parametrize(("activation", "rules", "note"), CASES.values(), ids=CASES)
def test_a_kernel_that_is_not_the_trained_one_is_seen_in_its_block(tmp_path, activation, rules, note):
    qat = exported(activation, rules, tmp_path)
    path = tmp_path / "model.onnx"
    model, before = onnx.load(path), hashlib.sha256(path.read_bytes()).hexdigest()
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "conv2/kernel")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1.03), kernel.name))
    onnx.save(model, path)
    told = tmp_path / "manifest.json"
    told.write_text(told.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))
    problems = tfqat.verify(qat, tmp_path, [IMAGES]).problems
    assert any(re.search("cache: 1 of 4 blocks differ .* 'act2'", problem) for problem in problems), problems


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla"])
def test_what_fuses_to_a_layer_that_a_rule_keeps_in_float_is_float_as_well(tmp_path, target):
    image = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu1")(layers.Conv2D(8, 3, padding="same", name="conv1")(image))
    y = layers.ReLU(name="relu2")(layers.Conv2D(8, 3, padding="same", name="conv2")(x))
    y = layers.GlobalAveragePooling2D(name="pool")(layers.Concatenate(name="both")([x, y]))
    qat = tfqat.prepare(
        keras.Model(image, layers.Dense(3, name="head")(y)), target, [{"match": "conv2", "quantize": False}]
    )
    rows = {row.op: (row.state, row.reason) for row in qat.placement.rows}
    assert rows["relu2"] == ("float", "fused into conv2")
    assert "conv2" not in qat.placement.activations
    tfqat.calibrate(qat, [IMAGES])
    tfqat.export(qat, tmp_path, calibration=[IMAGES])
    report = tfqat.verify(qat, tmp_path, [IMAGES])
    assert report.passed, report
