"""The loop's options: warm-up, freezing, averages, the best epoch, and going back where a loss is not finite."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfqat.jobs.train import train
from tfqat.models.load import load_model
from tfqat.rewrite.model import batch_norm_layers, range_layers
from tfqat.training import loop
from tfqat.training.average import averaged, take_average
from tfqat.training.checkpoint import restore
from tfqat.training.stages import read_stages


def rows(results, phase="qat"):
    with (results / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["phase"] == phase]


def test_the_rate_rises_over_the_warm_up(make_spec):
    """Digits in batches of 256 are 4 steps an epoch; 1.6 epochs are 6 steps."""
    section = {"learning_rate": 0.1, "schedule": "constant", "warmup_epochs": 1.6}
    spec = make_spec(enable_qat=False, float_epochs=3, optimizer=section)
    train(spec)
    rates = [float(row["learning_rate"]) for row in rows(Path(spec.results_dir), "float")]
    assert rates == pytest.approx([0.1 * 4 / 6, 0.1, 0.1])


def test_ranges_and_statistics_stay_from_their_epoch_on(make_spec, monkeypatch):
    seen = []

    def note(model, results, phase, epoch):
        if phase == "qat":
            norms = [np.array(norm.moving_mean) for norm in batch_norm_layers(model)]
            kernels = [np.array(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
            seen.append(([np.array(layer.extent) for layer in range_layers(model)], norms, kernels))

    monkeypatch.setattr(loop, "save_checkpoint", note)
    train(make_spec(num_epochs=4, freeze_ranges_epoch=1, freeze_batch_norm_epoch=2))
    moved = [
        [any((a != b).any() for a, b in zip(now, then, strict=True)) for now, then in zip(*pair, strict=True)]
        for pair in zip(seen[1:], seen[:-1], strict=True)
    ]
    assert moved == [[False, True, True], [False, False, True], [False, False, True]]


def test_averages_against_numpy():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8), "mse")
    weights, average = [], 0.0
    for step in range(4):
        model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
        weights.append(float(model.get_weights()[0][0, 0]))
        average = weights[-1] if step == 0 else 0.8 * average + 0.2 * weights[-1]
    with averaged(model):
        assert float(model.get_weights()[0][0, 0]) == pytest.approx(average)
    assert float(model.get_weights()[0][0, 0]) == weights[-1]
    assert average < weights[-1]
    take_average(model)
    assert float(model.get_weights()[0][0, 0]) == pytest.approx(average)


def test_averages_are_validated_and_kept_and_training_goes_on_with_the_weights(make_spec):
    spec = make_spec(num_epochs=2, optimizer={"ema": 0.9, "learning_rate": 0.2})
    train(spec)
    results = Path(spec.results_dir)
    kept = load_model(results / "qat.keras")
    raw = keras.models.load_model(results / "checkpoints" / "qat-0002.keras")
    accuracy = next(stage.score for stage in read_stages(results / "stages.json") if stage.name == "QAT")
    assert accuracy == pytest.approx(float(rows(results)[-1]["val_accuracy"]))
    means = {variable.path: variable for variable in raw.optimizer.variables if variable.path.endswith("_average")}
    assert len(means) == len(raw.trainable_variables)
    pairs = list(zip(kept.trainable_variables, raw.trainable_variables, means.values(), strict=True))
    for own, last, mean in pairs:
        np.testing.assert_array_equal(own, mean)
        assert own.shape == last.shape
    assert any((np.array(own) != np.array(last)).any() for own, last, _ in pairs)


def test_the_best_epoch_is_kept(make_spec, monkeypatch):
    """The epochs after the first are made bad by a rate that is far too high."""
    spec = make_spec(num_epochs=4, keep="best", qat_learning_rate=3.0, optimizer={"schedule": "constant"})
    train(spec)
    results = Path(spec.results_dir)
    accuracies = [float(row["val_accuracy"]) for row in rows(results)]
    assert accuracies[-1] < max(accuracies)
    kept = next(stage.score for stage in read_stages(results / "stages.json") if stage.name == "QAT")
    assert kept == pytest.approx(max(accuracies))


def spoilt(epoch_calls):
    """Data whose second epoch is not finite the first `epoch_calls` times that it is read."""
    images = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(32) % 10)).batch(8)
    left = [epoch_calls]

    def factor(epoch):
        if epoch == 1 and left[0]:
            left[0] -= 1
            return np.float32("nan")
        return np.float32(1)

    def epoch_data(epoch):
        scale = tf.py_function(lambda e: factor(int(e)), [epoch], tf.float32)
        return dataset.map(lambda x, y: (tf.ensure_shape(x * scale, (None, 8, 8, 1)), y))

    return {"train": epoch_data, "validation": dataset, "calibration": dataset}


def test_going_back_with_half_the_rate(make_spec, user_module, monkeypatch):
    user_module.data = lambda: spoilt(2)
    given = {"dataset_config": {"kind": "python", "function": "users:data"}}
    spec = make_spec(given, float_epochs=3, enable_qat=False, recoveries=2, optimizer={"schedule": "constant"})
    train(spec)
    results = Path(spec.results_dir)
    found = rows(results, "float")
    assert [row["epoch"] for row in found] == ["1", "2", "3"]
    assert [float(row["learning_rate"]) for row in found] == pytest.approx([0.05, 0.0125, 0.0125])
    lines = [json.loads(line) for line in (results / "status.jsonl").read_text().splitlines()]
    recoveries = [line for line in lines if "recovery" in line["kpi"]]
    assert [(line["epoch"], line["kpi"]["recovery"]) for line in recoveries] == [(1, 1), (1, 2)]
    assert "Going back to epoch 1, with half the learning rate" in recoveries[0]["message"]
    assert all(np.isfinite(value).all() for value in load_model(results / "float.keras").get_weights())


def test_going_back_to_before_the_first_step_and_no_more_often_than_asked(make_spec, user_module):
    images = np.full((16, 8, 8, 1), np.nan, np.float32)
    good = tf.data.Dataset.from_tensor_slices((np.ones_like(images), np.arange(16) % 10)).batch(8)
    bad = tf.data.Dataset.from_tensor_slices((images, np.arange(16) % 10)).batch(8)
    user_module.data = lambda: {"train": bad, "validation": good, "calibration": good}
    given = {"dataset_config": {"kind": "python", "function": "users:data"}}
    spec = make_spec(given, enable_qat=False, recoveries=2)
    with pytest.raises(loop.DivergedError, match="loss of the float phase is nan at step 1"):
        train(spec)
    lines = [json.loads(line) for line in (Path(spec.results_dir) / "status.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "recovery" in line["kpi"]] == [0, 0]
    model = user_module.net((8, 8, 1), 10)
    restore(model, Path(spec.results_dir) / "checkpoints" / "float-0000.keras")
    assert all(np.isfinite(value).all() for value in model.get_weights())
