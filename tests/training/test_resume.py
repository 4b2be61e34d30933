"""A run killed five times at random moments ends where the unbroken one does, bit for bit."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

FLOAT_EPOCHS, QAT_EPOCHS = 4, 4
# Killed some moments after metrics.csv has that many rows: in both phases, and between them.
KILLED_AFTER_ROWS = (0, 2, 4, 5, 6)
LIMIT = 180  # seconds for one run

# Everything that has a state of its own: BatchNorm, Dropout, momentum, a learning rate schedule, ranges.
MODEL = """
import keras
from keras import layers

def net(input_shape, num_classes):
    x = image = keras.Input(input_shape)
    for channels in (8, 16):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Dropout(0.1)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(num_classes, activation="softmax")(x))
"""
PROGRAM = "import sys; from tfqat import load_spec; from tfqat.jobs.train import train; train(load_spec(sys.argv[1]))"


def write_spec(folder: Path, name: str) -> Path:
    (folder / "users_net.py").write_text(MODEL)
    spec = {
        "results_dir": str(folder / name),
        "random_seed": 7,
        "dataset_config": {"kind": "digits", "image_size": 16, "batch_size": 64},
        "model_config": {"python": "users_net:net", "num_classes": 10},
        "training_config": {
            "float_epochs": FLOAT_EPOCHS,
            "num_epochs": QAT_EPOCHS,
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": "cosine", "weight_decay": 1e-4},
        },
        "quantization_config": {"target": "tensorrt", "calibration": {"method": "minmax", "batches": 2}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    return folder / f"{name}.yaml"


def start(spec: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(spec.parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(spec)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(spec: Path) -> str:
    process = start(spec)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    return output


def rows(results: Path) -> list[dict[str, str]]:
    file = results / "metrics.csv"
    return list(csv.DictReader(io.StringIO(file.read_text()))) if file.exists() else []


def starts(results: Path) -> int:
    file = results / "status.jsonl"
    return file.read_text().count('"STARTED"') if file.exists() else 0


def kill_after(spec: Path, results: Path, count: int, delay: float) -> None:
    before, process = starts(results), start(spec)
    until = time.monotonic() + LIMIT
    while starts(results) == before or len(rows(results)) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(delay)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Results folders of the unbroken and the broken run, and the broken one's last output."""
    folder = tmp_path_factory.mktemp("runs")
    finish(write_spec(folder, "unbroken"))
    spec, moments = write_spec(folder, "broken"), random.Random(3)
    for count in KILLED_AFTER_ROWS:
        kill_after(spec, folder / "broken", count, moments.uniform(0, 0.6))
    return folder / "unbroken", folder / "broken", finish(spec)


@pytest.mark.parametrize("name", ["float.keras", "qat.keras", "checkpoints/qat-0004.keras"])
def test_weights_ranges_and_optimizer_are_the_same_bit_for_bit(runs, variables, name):
    unbroken, broken = variables(runs[0] / name), variables(runs[1] / name)
    assert unbroken.keys() == broken.keys()
    assert len(unbroken) > 10
    for key, value in unbroken.items():
        np.testing.assert_array_equal(broken[key], value, err_msg=key)


def test_the_weights_moved_in_training(runs, variables):
    first, last = (variables(runs[0] / "checkpoints" / f"float-{epoch:04d}.keras") for epoch in (3, 4))
    assert any((first[key] != last[key]).any() for key in first if key.startswith("layers/"))


@pytest.mark.parametrize("name", ["metrics.csv", "stages.json", "placement.txt"])
def test_notes_are_the_same(runs, name):
    assert (runs[1] / name).read_text() == (runs[0] / name).read_text()


def test_each_epoch_is_noted_once(runs):
    expected = [("float", epoch + 1) for epoch in range(FLOAT_EPOCHS)] + [("qat", e + 1) for e in range(QAT_EPOCHS)]
    assert [(row["phase"], int(row["epoch"])) for row in rows(runs[1])] == expected
    lines = [json.loads(line) for line in (runs[1] / "status.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["epoch"]) for line in lines if line["status"] == "RUNNING"] == expected
    assert [line["status"] for line in lines].count("STARTED") == 6
    assert lines[-1]["status"] == "SUCCESS"


def test_the_last_run_went_on_and_did_not_begin_anew(runs):
    assert "Continuing the qat phase after epoch" in runs[2]
    assert "Epoch 1/" not in runs[2]


def test_nothing_half_written_is_left(runs):
    assert not [path for path in runs[1].rglob("*") if ".tmp" in path.name]
    assert sorted(path.name for path in (runs[1] / "checkpoints").iterdir()) == [
        "float-0003.keras", "float-0004.keras", "qat-0003.keras", "qat-0004.keras",
    ]  # fmt: skip
