"""A tiny spec and model for runs inside the test process."""

from __future__ import annotations

import io
import sys
import zipfile
from types import ModuleType

import h5py
import keras
import pytest
from keras import layers

from tfqat.jobs import quantize, train
from tfqat.spec.schema import Spec


def net(input_shape, num_classes):
    """Small, and with everything that a phase has to keep: BatchNorm, ReLU, Dropout."""
    image = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, strides=2, use_bias=False)(image)
    x = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(image, layers.Dense(num_classes, activation="softmax")(layers.Flatten()(x)))


@pytest.fixture
def user_module(monkeypatch):
    """A module of the user's own; `users:net` is the model."""
    module = ModuleType("users")
    module.net = net
    monkeypatch.setitem(sys.modules, "users", module)
    return module


@pytest.fixture
def make_spec(tmp_path, user_module, monkeypatch):
    """Makes a Spec; keyword arguments replace keys of its training section, `sections` whole sections."""
    # Deterministic ops cannot be switched off again, and would reach the other tests.
    for job in (quantize, train):
        monkeypatch.setattr(job, "make_deterministic", keras.utils.set_random_seed)

    def make(sections=(), **training):
        base = {
            "results_dir": str(tmp_path / "results"),
            "dataset_config": {"kind": "digits", "image_size": 8, "batch_size": 256},
            "model_config": {"python": "users:net", "num_classes": 10},
            "training_config": {"float_epochs": 1, "num_epochs": 1} | training,
            "quantization_config": {"calibration": {"method": "minmax", "batches": 1}},
        }
        return Spec.model_validate(base | dict(sections))

    return make


@pytest.fixture(scope="session")
def variables():
    """Reads the variables in a `.keras` file, the optimizer's among them, by their names there."""

    def read(path):
        found = {}
        note = lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None  # noqa: E731
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(note)
        return found

    return read
