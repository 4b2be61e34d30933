"""`tfqat quantize`: the float model calibrated and tuned; how it and training leave each other's work alone."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.jobs.export import export_spec
from tfqat.jobs.quantize import quantize
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.models.load import load_model
from tfqat.rewrite.model import batch_norm_layers
from tfqat.training.results import Results
from tfqat.training.stages import read_stages


def results_of(spec):
    return Results(Path(spec.results_dir))


def names(spec):
    return [row.name for row in read_stages(results_of(spec).stages)]


def pair_net(input_shape, num_classes):
    """Two kernels in a row: something to equalize, too."""
    x = image = keras.Input(input_shape)
    for size in (4, 6):
        x = layers.Conv2D(size, 3, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(scale=False)(x))
    return keras.Model(image, layers.Dense(num_classes, activation="softmax")(layers.Flatten()(x)))


@pytest.fixture
def make_tuned(make_spec, user_module):
    """A Spec with these methods."""
    user_module.net = pair_net

    def make(*methods, **training):
        quantization = {
            "calibration": {"method": "minmax", "batches": 1},
            "relu6": [],
            "tune": list(methods),
        }
        return make_spec({"quantization_config": quantization}, **training)

    return make


def test_it_leaves_a_model_that_is_exported_and_verified(make_tuned, capsys):
    spec = make_tuned("equalize", "adaround", "bias_correction", "batch_norm")
    quantize(spec)
    printed = capsys.readouterr().out
    for method in spec.quantization.tune:
        assert f"{method}: " in printed
    rows = ["float", "float + ReLU6", "PTQ (calibrated only)", "PTQ + equalize, adaround, bias_correction, batch_norm"]
    assert names(spec) == rows
    assert not list(results_of(spec).checkpoints.glob("qat-*"))
    export_spec(spec)
    assert verify_spec(spec).passed

    # The row is that of the file, counted by hand.
    from tfqat.data import load

    model, right = load_model(results_of(spec).qat_model), []
    for images, labels in load(spec.dataset, spec.random_seed).validation:
        right += list(np.argmax(model(images, training=False), axis=-1) == labels.numpy())
    assert np.mean(right) == pytest.approx(read_stages(results_of(spec).stages)[3].score)

    capsys.readouterr()
    quantize(spec)
    assert "nothing was done" in capsys.readouterr().out


def test_training_goes_on_from_what_it_left(make_tuned):
    spec = make_tuned("equalize", "bias_correction")
    quantize(spec)
    float_model = results_of(spec).float_model.read_bytes()
    train(spec)
    assert results_of(spec).float_model.read_bytes() == float_model
    assert names(spec) == [
        "float",
        "float + ReLU6",
        "PTQ (calibrated only)",
        "PTQ + equalize, bias_correction",
        "QAT",
        "finalized",
    ]
    statuses = [json.loads(line) for line in results_of(spec).status.read_text().splitlines()]
    assert [line["phase"] for line in statuses if line["status"] == "SUCCESS"] == ["quantize", None]


def test_a_trained_model_is_not_overwritten(make_tuned):
    spec = make_tuned()
    train(spec)
    trained = results_of(spec).qat_model.read_bytes()
    with pytest.raises(TfqatError, match="trained quantized, which would be lost"):
        quantize(spec)
    assert results_of(spec).qat_model.read_bytes() == trained
    quantize(spec, restart=True)
    assert names(spec) == ["float", "float + ReLU6", "PTQ (calibrated only)"]


def test_a_broken_run_of_training_goes_on_with_the_same_equalized_model(make_tuned, monkeypatch):
    """The QAT phase's checkpoints have the gamma that equalization gives a BatchNorm without one."""
    spec = make_tuned("equalize", "batch_norm", num_epochs=2)
    train(spec)
    whole = load_model(results_of(spec).qat_model).get_weights()
    results_of(spec).qat_model.unlink()
    (results_of(spec).checkpoints / "qat-0002.keras").unlink()
    train(spec)
    for ours, theirs in zip(load_model(results_of(spec).qat_model).get_weights(), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_batch_norm_is_estimated_after_training_too(make_tuned, capsys):
    spec = make_tuned("batch_norm")
    train(spec)
    assert capsys.readouterr().out.count("batch_norm: 2 changed") == 2
    final = load_model(results_of(spec).qat_model)
    last = load_model(results_of(spec).checkpoints / "qat-0001.keras")
    for ours, theirs in zip(batch_norm_layers(final), batch_norm_layers(last), strict=True):
        assert not np.array_equal(ours.moving_variance, theirs.moving_variance)
        assert np.array_equal(ours.beta, theirs.beta)


def test_what_cannot_be_quantized_is_said(make_spec, make_tuned, user_module):
    with pytest.raises(TfqatError, match="enable_qat is false"):
        quantize(make_spec(enable_qat=False))
    # The default list makes ReLU6 of what lies between the kernels; found before the float phase.
    spec = make_spec({"quantization_config": {"tune": ["equalize"]}})
    with pytest.raises(TfqatError, match=r"(?s)becomes relu6"):
        train(spec)
    assert not results_of(spec).float_model.exists()
