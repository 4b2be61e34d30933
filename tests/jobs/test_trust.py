"""A spec whose checkpoint carries Python code: each command runs it only where it is told to trust the file."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.jobs import train as job
from tfqat.jobs.evaluate import evaluate
from tfqat.jobs.export import export_spec
from tfqat.jobs.inspect import inspect
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.spec.schema import Spec


@pytest.fixture
def spec(tmp_path, monkeypatch):
    # Deterministic ops cannot be switched off again, and would reach the other tests.
    monkeypatch.setattr(job, "make_deterministic", keras.utils.set_random_seed)
    random = np.random.default_rng(0)
    images, labels = random.random((32, 8, 8, 3), np.float32), random.integers(0, 3, 32)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.Lambda(lambda t: t * 2.0, output_shape=(6, 6, 4), name="double")(x)
    x = layers.Dense(3, name="scores")(layers.Flatten(name="flatten")(x))
    keras.Model(image, x).save(tmp_path / "model.keras")
    return Spec.model_validate(
        {
            "results_dir": str(tmp_path / "results"),
            "dataset_config": {"kind": "npz", "path": str(tmp_path / "data.npz"), "batch_size": 16},
            "model_config": {"checkpoint": str(tmp_path / "model.keras"), "num_classes": 3},
            "training_config": {"num_epochs": 0},
            "export_config": {"formats": ["qdq_onnx"]},
        }
    )


COMMANDS = {
    "inspect": inspect,
    "train": train,
    "evaluate": evaluate,
    "export": export_spec,
    "verify": verify_spec,
}


def test_code_in_a_checkpoint_runs_where_the_file_is_trusted(spec):
    for name in ("inspect", "train"):
        with pytest.raises(TfqatError, match=r"'double' is a Lambda layer.*--trust"):
            COMMANDS[name](spec)
    for command in COMMANDS.values():
        command(spec, trust=True)
    # Nothing of it is remembered: the results folder's own files carry the code, too.
    for name in ("evaluate", "export", "verify"):
        with pytest.raises(TfqatError, match=r"qat\.keras: layer 'double' is a Lambda layer.*--trust"):
            COMMANDS[name](spec)
