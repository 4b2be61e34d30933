"""`tfqat analyze` on a spec: the trained model on its validation images, tables, and a report in the results folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat import data as datasets
from tfqat.errors import TfqatError
from tfqat.jobs.analyze import analyze_spec
from tfqat.spec.schema import Spec

MODULE = "nets_of_the_analysis"


def net(input_shape, num_classes):
    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(x)))


def spec_of(folder, **training) -> Spec:
    return Spec.model_validate(
        {
            "results_dir": str(folder),
            "dataset_config": {"kind": "digits", "image_size": 8, "batch_size": 100},
            "model_config": {"python": f"{MODULE}:net", "num_classes": 10},
            "training_config": training,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A spec whose results folder holds a trained model, and that model."""
    spec = spec_of(tmp_path_factory.mktemp("results"))
    keras.utils.set_random_seed(0)
    data = datasets.load(spec.dataset, 0)
    model = tfqat.prepare(net((8, 8, 1), 10))
    tfqat.calibrate(model, data.calibration, method="minmax", batches=1)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.train(0), verbose=0)
    model.save(f"{spec.results_dir}/qat.keras")
    return spec, model, data


@pytest.fixture(autouse=True)
def user_module(monkeypatch):
    module = ModuleType(MODULE)
    module.net = net
    monkeypatch.setitem(sys.modules, MODULE, module)


def test_the_trained_model_on_its_validation_images(trained, tmp_path, capsys):
    spec, model, data = trained
    analyze_spec(spec, 150, output=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    images, labels = (np.concatenate(parts)[:150] for parts in zip(*data.validation.as_numpy_iterator(), strict=True))
    right = model.predict(images, verbose=0).argmax(-1) == labels
    assert document["samples"] == 150
    assert document["forms"]["quantized"]["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
    printed = capsys.readouterr().out
    assert "conv" in printed
    assert str(tmp_path / "out" / "report.json") in printed.replace("\n", "")


def test_without_a_folder_it_is_the_results_folders(trained, capsys):
    found = analyze_spec(trained[0], 10_000)
    assert (trained[2].validation.cardinality().numpy() - 1) * 100 < found.samples < 10_000
    assert json.loads(Path(trained[0].results_dir, "analysis", "report.json").read_text())["asked"] == 10_000
    assert f"for tensorrt, {found.samples} samples (of at most 10000)" in " ".join(capsys.readouterr().out.split())


def test_what_the_budget_does_not_reach_is_said(trained, tmp_path, capsys):
    analyze_spec(trained[0], 20, budget=1e-6, output=tmp_path)
    assert "Not measured within 1e-06 s: 2 of 2 blocks (" in " ".join(capsys.readouterr().out.split())


def test_nothing_is_trained_yet(tmp_path):
    with pytest.raises(TfqatError, match=r"No trained model.*Run `tfqat train`"):
        analyze_spec(spec_of(tmp_path / "none"), 10)
    assert not (tmp_path / "none").exists()


def test_a_spec_that_trains_in_float(tmp_path):
    with pytest.raises(TfqatError, match="nothing was quantized"):
        analyze_spec(spec_of(tmp_path, enable_qat=False), 10)
