"""The export job: whole or nothing, and every option honored or refused."""

from __future__ import annotations

import json
import os

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.exporters import cache
from tfqat.jobs.export import export_spec
from tfqat.jobs.trained import quantized_model
from tfqat.spec.schema import Spec

NAMES = {"model.onnx", "model.cache", "model.qdq.onnx", "layer_precisions.txt", "encodings.json", "manifest.json"}


def prepared(images: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))
    model = tfqat.prepare(keras.Model(image, x))
    tfqat.calibrate(model, tf.data.Dataset.from_tensor_slices(images).batch(8), method="minmax", batches=1)
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def model(images):
    return prepared(images)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return tfqat.export(model, folder)


def test_all_files_are_written(exported):
    assert {path.name for path in exported.values()} == NAMES
    assert {path.name for path in exported["onnx"].parent.iterdir()} == NAMES
    onnx.checker.check_model(str(exported["onnx"]), full_check=True)
    onnx.checker.check_model(str(exported["qdq_onnx"]), full_check=True)


def test_the_finalized_model_gives_the_same_bytes(model, exported, tmp_path):
    again = tfqat.export(tfqat.finalize(model), tmp_path)
    assert {k: p.read_bytes() for k, p in again.items()} == {k: p.read_bytes() for k, p in exported.items()}


def test_the_model_is_untouched(model, tmp_path):
    before = [np.array(weight) for weight in model.weights]
    tfqat.export(model, tmp_path)
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(before, model.weights, strict=True))


def test_it_says_what_is_covered_and_which_tensorrt_reads_what(model, tmp_path, capsys):
    tfqat.export(model, tmp_path, tensorrt_version="10.3.0")
    told = capsys.readouterr().out
    assert "5 of 5 tensors covered; 1 of 2 weighted layers in INT8" in told
    assert "float: head (output layer" in told
    assert "10.3.0" in told
    assert "11 included" in told
    assert cache.read(tmp_path / "model.cache").version == 100300


def test_a_cache_under_another_name(model, tmp_path):
    files = tfqat.export(model, tmp_path, cache_name="int8.table")
    assert files["cache"] == tmp_path / "int8.table"
    assert cache.read(files["cache"]).scales
    assert json.loads(files["manifest"].read_text())["files"]["cache"]["name"] == "int8.table"
    assert tfqat.verify(model, tmp_path).passed


def test_int8_weights(model, tmp_path, images):
    files = tfqat.export(model, tmp_path, int8_weights=True, opset=18)
    kinds = {t.name: t.data_type for t in onnx.load(files["qdq_onnx"]).graph.initializer}
    assert kinds["conv/kernel/quantize"] == onnx.TensorProto.INT8
    assert "TensorRT 10 and later" in json.loads(files["manifest"].read_text())["files"]["qdq_onnx"]["read_by"]
    assert tfqat.verify(model, tmp_path, images).passed


REFUSED = {
    "format": ({"formats": ["tensort"]}, "Did you mean 'tensorrt'"),
    "no format": ({"formats": []}, "expected some of tensorrt"),
    "version": ({"tensorrt_version": "8"}, "tensorrt_version"),
    "opset": ({"opset": 11}, "opset"),
    "input names": ({"input_names": ["a", "b"]}, "input_names"),
    "output names": ({"output_names": ["a:0"]}, "output_names"),
    "cache name": ({"cache_name": "model.onnx"}, "another file"),
}


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED)
def test_a_refused_option_leaves_nothing_behind(model, tmp_path, options, says):
    with pytest.raises(TfqatError, match=says):
        tfqat.export(model, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("**/*")) if (tmp_path / "out").exists() else True


def test_a_failed_export_leaves_the_old_files(model, tmp_path):
    tfqat.export(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TfqatError):
        tfqat.export(model, tmp_path, output_names=["a,b"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_that_saw_no_data_is_refused(tmp_path):
    image = keras.Input((8, 8, 1), name="image")
    model = tfqat.prepare(keras.Model(image, layers.Conv2D(2, 3, name="b")(layers.Conv2D(2, 3, name="a")(image))))
    with pytest.raises(TfqatError, match="no data"):
        tfqat.export(model, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_float_model_is_refused(tmp_path):
    with pytest.raises(TfqatError, match="prepare"):
        tfqat.export(keras.Sequential([keras.Input((4,)), layers.Dense(2)]), tmp_path)


def test_a_path_that_is_a_file_is_refused(model, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(TfqatError, match="is a file"):
        tfqat.export(model, tmp_path / "out")


def test_a_dead_tensor_is_floored_and_listed_or_refused(tmp_path, capsys):
    model = prepared(np.zeros((8, 8, 8, 1), "float32"))
    with pytest.raises(TfqatError, match="zero wherever"):
        tfqat.export(model, tmp_path, strict=True)
    files = tfqat.export(model, tmp_path)
    assert "image" in json.loads(files["manifest"].read_text())["report"]["dead"]
    assert "dead" in capsys.readouterr().out
    assert all(np.isfinite(s) and s > 0 for s in cache.read(files["cache"]).scales.values())


def spec_of(folder, **training) -> Spec:
    """A spec whose trained model is in ``folder``."""
    return Spec.model_validate(
        {
            "results_dir": str(folder),
            "dataset_config": {"kind": "digits"},
            "model_config": {"architecture": "resnet8", "num_classes": 10},
            "training_config": {"float_epochs": 1, **training},
            "export_config": {"formats": ["tensorrt"]},
        }
    )


def test_a_spec_exports_its_trained_model(model, exported, tmp_path):
    model.save(tmp_path / "qat.keras")
    files = export_spec(spec_of(tmp_path))
    assert files["cache"] == tmp_path / "export" / "model.cache"
    assert files["cache"].read_bytes() == exported["cache"].read_bytes()
    elsewhere = export_spec(spec_of(tmp_path), cache=tmp_path / "other" / "x.cache")
    assert elsewhere["cache"] == tmp_path / "other" / "x.cache"
    assert elsewhere["onnx"] == tmp_path / "other" / "model.onnx"


def test_a_spec_without_a_trained_model_is_refused(tmp_path):
    with pytest.raises(TfqatError, match="Run `tfqat train`"):
        quantized_model(spec_of(tmp_path))
    with pytest.raises(TfqatError, match="enable_qat"):
        quantized_model(spec_of(tmp_path, enable_qat=False))
