"""A run that breaks off in a quantized epoch, started again, ends where the unbroken one does, with each option."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfqat.jobs.train import train
from tfqat.training import loop

OPTIONS = {
    "distillation": {"distillation": {"temperature": 2.0}},
    "schedule": {
        "optimizer": {"warmup_epochs": 0.5},
        "freeze_ranges_epoch": 1,
        "freeze_batch_norm_epoch": 2,
        "keep": "best",
        "recoveries": 1,
    },
    "average": {"optimizer": {"ema": 0.9, "name": "adam", "learning_rate": 0.01}, "keep": "best"},
    "oscillation": {"oscillation": {"dampening": 0.1, "freeze_threshold": 0.02, "momentum": 0.1}},
    "precision": {"precision": "mixed_float16"},
    "weights": {"l2": 0.01, "freeze_batch_norm": True, "optimizer": {"clip_norm": 0.5}},
}


class BrokenOff(Exception):
    """As if the machine had gone down."""


@pytest.mark.parametrize("training", OPTIONS.values(), ids=OPTIONS)
def test_the_same_result(make_spec, user_module, monkeypatch, variables, training):
    spec = make_spec(num_epochs=3, **training)
    results = Path(spec.results_dir)
    train(spec)
    unbroken = shutil.copytree(results, results.with_name("unbroken"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", broken_after(2, loop.save_checkpoint))
        with pytest.raises(BrokenOff):
            train(spec, restart=True)
    assert not (results / "qat.keras").exists()
    train(spec)
    for name in ("qat.keras", "checkpoints/qat-0003.keras"):
        expected, found = variables(unbroken / name), variables(results / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=f"{name}: {key}")
    assert (results / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()


def broken_after(epochs, save):
    def save_and_break(model, results, phase, epoch):
        save(model, results, phase, epoch)
        if (phase, epoch) == ("qat", epochs):
            raise BrokenOff

    return save_and_break


def test_the_same_result_where_it_breaks_off_as_it_goes_back(make_spec, user_module, monkeypatch, variables):
    """The third quantized epoch is spoilt once; the broken run ends between the note and the return."""
    given = {"dataset_config": {"kind": "python", "function": "users:data"}}
    # No float phase: it would read ahead, as far as the spoilt epoch where the machine is busy.
    spec = make_spec(given, float_epochs=0, num_epochs=4, recoveries=1)
    results = Path(spec.results_dir)
    data = spoilt_once()
    user_module.data = lambda: data
    train(spec)
    unbroken = shutil.copytree(results, results.with_name("unbroken"))
    data = spoilt_once()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_note_recovery", broken_behind(loop._note_recovery))
        with pytest.raises(BrokenOff):
            train(spec, restart=True)
    train(spec)
    expected, found = (variables(folder / "qat.keras") for folder in (unbroken, results))
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert (results / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()
    rates = [line.split(",")[6] for line in (results / "metrics.csv").read_text().splitlines()[1:]]
    assert float(rates[2]) < 0.2 * float(rates[1])  # by the cosine schedule alone it would be 0.29


def broken_behind(note):
    def note_and_break(*arguments):
        note(*arguments)
        raise BrokenOff

    return note_and_break


def spoilt_once():
    images = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(32) % 10)).batch(8)
    left = [1]

    def factor(epoch):
        if int(epoch) == 2 and left[0]:
            left[0] -= 1
            return np.float32("nan")
        return np.float32(1)

    def epoch_data(epoch):
        scale = tf.py_function(factor, [epoch], tf.float32)
        return dataset.map(lambda x, y: (tf.ensure_shape(x * scale, (None, 8, 8, 1)), y))

    return {"train": epoch_data, "validation": dataset, "calibration": dataset}
