"""`tfqat verify` on a spec: rows in the table, and an error where a stage is out of tolerance."""

from __future__ import annotations

import shutil
import sys
from types import ModuleType

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat import data as datasets
from tfqat.errors import TfqatError
from tfqat.jobs.export import export_spec
from tfqat.jobs.verify import VerificationError, verify_spec
from tfqat.spec.schema import Spec
from tfqat.training.stages import read_stages


def net(input_shape, num_classes):
    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with a model that was trained for one epoch, and its export."""
    folder = tmp_path_factory.mktemp("results")
    spec = Spec.model_validate(
        {
            "results_dir": str(folder),
            "dataset_config": {"kind": "digits", "image_size": 8, "batch_size": 256},
            "model_config": {"python": "nets_of_the_test:net", "num_classes": 10},
        }
    )
    keras.utils.set_random_seed(0)
    data = datasets.load(spec.dataset, 0)
    model = tfqat.prepare(net((8, 8, data.input_shape[-1]), 10))
    tfqat.calibrate(model, data.calibration, method="minmax", batches=1)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.train(0), verbose=0)
    model.save(folder / "qat.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nets_of_the_test", module())
        export_spec(spec)
    return spec


def module() -> ModuleType:
    made = ModuleType("nets_of_the_test")
    made.net = net
    return made


@pytest.fixture
def spec(trained, tmp_path, monkeypatch):
    """The spec with a copy of its results folder."""
    monkeypatch.setitem(sys.modules, "nets_of_the_test", module())
    shutil.copytree(trained.results_dir, tmp_path / "results")
    return trained.model_copy(update={"results_dir": str(tmp_path / "results")})


def test_the_files_become_rows(spec, tmp_path, capsys):
    report = verify_spec(spec)
    assert report.trained.images == report.rows[0].images == 599
    rows = read_stages(tmp_path / "results" / "stages.json")
    assert [row.name for row in rows] == ["Q/DQ ONNX", "float ONNX + cache"]
    assert [row.score for row in rows] == [row.score for row in report.rows]
    assert rows[0].file_size == (tmp_path / "results" / "export" / "model.qdq.onnx").stat().st_size
    told = capsys.readouterr().out
    assert "Q/DQ ONNX" in told
    assert "same class as QAT" in told


def test_a_model_trained_on_after_the_export_is_noticed(spec, tmp_path):
    model = tfqat.load_model(tmp_path / "results" / "qat.keras")
    for weight in model.trainable_weights:
        weight.assign(weight + np.random.default_rng(0).normal(size=weight.shape) * 0.1)
    model.save(tmp_path / "results" / "qat.keras")
    with pytest.raises(VerificationError, match=r"Q/DQ ONNX.*export it again"):
        verify_spec(spec)


def test_nothing_exported_yet(spec, tmp_path):
    shutil.rmtree(tmp_path / "results" / "export")
    with pytest.raises(TfqatError, match=r"no export in .*tfqat export .*--cache PATH"):
        verify_spec(spec)


def test_an_export_of_another_place(spec, tmp_path):
    cache = tmp_path / "elsewhere" / "x.cache"
    export_spec(spec, cache)
    shutil.rmtree(tmp_path / "results" / "export")
    assert verify_spec(spec, cache).passed
    with pytest.raises(TfqatError, match=r"has the cache 'x\.cache', received 'y\.cache'"):
        verify_spec(spec, cache.with_name("y.cache"))
