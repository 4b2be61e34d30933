"""A run that breaks off in a quantized epoch, started again, ends where the unbroken one does, with each option."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

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
    "average": {"optimizer": {"ema": 0.9, "name": "adam", "learning_rate": 0.01}},
    "oscillation": {"oscillation": {"dampening": 0.1, "freeze_threshold": 0.02, "momentum": 0.1}},
    "precision": {"precision": "mixed_float16"},
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
