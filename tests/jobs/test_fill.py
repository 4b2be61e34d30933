"""Scales that are found at export, and the complete cache of the DLA."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.exporters import cache, encodings, layer_precisions


def residual() -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(image)
    y = layers.Conv2D(4, 3, padding="same", name="branch")(x)
    x = layers.ReLU(name="out")(layers.Add(name="join")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x), name="residual")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def exported(images, tmp_path_factory):
    """Roles of the DLA's files -> paths, and of the GPU's, of one trained model."""
    keras.utils.set_random_seed(0)
    model = tfqat.prepare(residual())
    tfqat.calibrate(model, images, batches=2)
    folder = tmp_path_factory.mktemp("export")
    dla = tfqat.export(model, folder / "dla", formats=["tensorrt_dla"], calibration=images)
    return dla, tfqat.export(model, folder / "gpu"), model


def test_it_writes_these_files(exported):
    dla, _, _ = exported
    assert {role: path.name for role, path in dla.items()} == {
        "onnx": "model.onnx",
        "cache": "model.cache",
        "layer_precisions": "layer_precisions.txt",
        "encodings": "encodings.json",
        "manifest": "manifest.json",
    }


def test_every_tensor_has_a_scale(exported):
    dla, _, _ = exported
    model = onnx.load(dla["onnx"])
    tensors = {info.name for info in model.graph.input} | {name for node in model.graph.node for name in node.output}
    assert set(cache.read(dla["cache"]).scales) == tensors


def test_trained_scales_are_kept_and_the_others_marked(exported):
    dla, gpu, _ = exported
    complete, trained = cache.read(dla["cache"]).scales, cache.read(gpu["cache"]).scales
    assert {name: complete[name] for name in trained} == dict(trained)
    assert len(complete) > len(trained)
    told = encodings.read(dla["encodings"]).activations
    assert {name for name in complete if name not in trained} == {
        name for name, encoding in told.items() if encoding.origin == "calibrated"
    }


def test_the_others_have_the_range_that_the_trained_model_shows(exported, images):
    dla, gpu, _ = exported
    model = onnx.load(gpu["qdq_onnx"])
    model.graph.output.append(onnx.ValueInfoProto(name="head"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run(["head"], {"image": images})
    scale = cache.read(dla["cache"]).scales["head"]
    # calibrate's default, mse, may clip; it never widens, and never throws most of the range away
    assert 0.5 * np.abs(values).max() < 127 * scale <= np.abs(values).max() * 1.001


def test_the_layers_that_must_stay_float_are_fp16(exported):
    dla, gpu, _ = exported
    float_on_gpu = layer_precisions.read(gpu["layer_precisions"])
    assert set(float_on_gpu.values()) == {"fp32"}
    assert layer_precisions.read(dla["layer_precisions"]) == dict.fromkeys(float_on_gpu, "fp16")
    assert "head" in float_on_gpu


def test_verify_runs_it(exported, images):
    dla, _, model = exported
    report = tfqat.verify(model, dla["onnx"].parent, images)
    assert [row.name for row in report.rows] == ["float ONNX + cache"]
    assert report.passed, report
    # What the blocks hide is not rounded, so that the blocks agree to the integer.
    assert report.blocks
    assert report.rows[0].agreement == 1.0


def test_without_images_it_is_refused(exported, tmp_path):
    _, _, model = exported
    with pytest.raises(TfqatError, match="calibration=dataset"):
        tfqat.export(model, tmp_path / "out", formats=["tensorrt_dla"])
    assert not list(tmp_path.glob("out/*"))


def test_two_caches_do_not_go_into_one_folder(exported, images, tmp_path):
    _, _, model = exported
    with pytest.raises(TfqatError, match=r"tensorrt and tensorrt_dla both write model.cache"):
        tfqat.export(model, tmp_path, formats=["tensorrt", "tensorrt_dla"], calibration=images)


def test_the_target_exports_so_by_itself(images, tmp_path):
    model = tfqat.prepare(residual(), target="tensorrt_dla")
    tfqat.calibrate(model, images)
    assert set(tfqat.export(model, tmp_path, calibration=images)) == {
        *("onnx", "cache", "layer_precisions", "encodings", "manifest")
    }
