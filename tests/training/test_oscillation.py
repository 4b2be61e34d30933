"""Oscillation: the paper's one-weight regression, and what freezing remembers against the algorithm in numpy."""

from __future__ import annotations

import csv
from pathlib import Path

import keras
import numpy as np
import pytest

import tfqat
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.jobs.train import train
from tfqat.models.load import load_model
from tfqat.rewrite.kernels import QuantDense
from tfqat.rewrite.model import kernel_layers
from tfqat.training import oscillation
from tfqat.training.oscillation import calm

# A grid of 0.5, and a target between two of its points: the gradient of a rounded weight is never 0 there.
STEP, TARGET, RATE, STEPS = 0.5, 0.7, 0.02, 300


def one_weight(monkeypatch, start=0.6, **settings):
    """Trains w towards TARGET, rounded to STEP; gives the weight after each step."""
    layer = QuantDense(1, use_bias=False, weight_scheme=Scheme(bits=4, narrow=True), scale_by="held")
    layer.build((None, 1))
    layer.hold_scale(np.float32(STEP))
    layer._kernel.assign([[start]])
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build([layer._kernel])
    terms = {}

    class Model:
        def add_objective(self, key, objective):
            terms[key] = objective

    monkeypatch.setattr(oscillation, "kernel_layers", lambda model: [layer])
    calm(Model(), optimizer, STEPS, **settings)
    import tensorflow as tf

    weights = []
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = keras.ops.sum(keras.ops.square(layer(np.ones((1, 1), np.float32)) - TARGET)) / 2
            for objective in terms.values():
                if objective is not None:
                    loss += sum(objective.terms(None, []).values())
        variables = layer.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        weights.append(float(layer._kernel.numpy()[0, 0]))
    return np.array(weights)


def integers(weights):
    return np.rint(weights.astype(np.float32) / np.float32(STEP))


def turns(weights):
    """How often the integer changes against its change before."""
    changes = np.sign(np.diff(integers(weights)))
    changes = changes[changes != 0]
    return int(np.sum(changes[1:] * changes[:-1] < 0))


def test_the_weight_oscillates_where_nothing_is_done(monkeypatch):
    weights = one_weight(monkeypatch)
    assert turns(weights[-100:]) > 5


def test_dampening_stops_it(monkeypatch):
    weights = one_weight(monkeypatch, dampening=2.0)
    assert turns(weights[-100:]) == 0
    # Between the rounded weight (pulled by 0.3 or 0.2) and the grid (pulling back): at rest.
    assert abs(weights[-1] - weights[-2]) < 1e-3


def test_freezing_stops_it_where_it_mostly_was(monkeypatch):
    weights = one_weight(monkeypatch, freeze_threshold=0.05, momentum=0.02)
    before = one_weight(monkeypatch)
    assert turns(weights[-100:]) == 0
    assert turns(weights) > 0
    assert set(weights[-100:]) == {STEP}  # 0.5 is nearer to 0.7 than 1.0: there it is more often
    frozen = numpy_freezing(before, 0.05, 0.02)
    assert frozen is not None
    step, integer = frozen
    np.testing.assert_array_equal(weights[:step], before[:step])
    assert set(weights[step:]) == {integer * STEP}


def numpy_freezing(weights, threshold, momentum):
    """Algorithm 1 of the paper for one weight, written out: the step at which it freezes, and the integer."""
    last, direction, frequency, mean = None, 0, 0.0, 0.0
    for step, now in enumerate(integers(weights)):
        if last is None:
            last = mean = now
        change = np.sign(now - last)
        oscillates = change != 0 and direction != 0 and change != direction
        frequency = momentum * oscillates + (1 - momentum) * frequency
        mean = momentum * now + (1 - momentum) * mean
        direction, last = change or direction, now
        if frequency > threshold:
            return step, np.rint(mean)
    return None


def test_the_distance_against_numpy():
    layer = QuantDense(3, weight_scheme=Scheme(bits=3, narrow=True, axis=(-1,)))
    layer.build((None, 4))
    kernel = layer._kernel.numpy()
    scale = np.abs(kernel).max(axis=0) / 3
    expected = np.square(np.rint(kernel / scale) * scale - kernel).sum()
    assert float(oscillation.distance(layer)) == pytest.approx(expected, rel=1e-5)
    clipped = QuantDense(3, weight_scheme=Scheme(bits=3, narrow=True, axis=(-1,)), scale_by="held")
    clipped.build((None, 4))
    clipped.hold_scale(np.full(3, 0.01))
    kernel = clipped._kernel.numpy()
    inside = np.clip(kernel, -0.03, 0.03)
    expected = np.square(np.clip(np.rint(kernel / 0.01), -3, 3) * 0.01 - inside).sum()
    assert float(oscillation.distance(clipped)) == pytest.approx(expected, rel=1e-3)


def test_a_run_by_its_spec(make_spec, variables):
    rules = [{"match": "*", "weight_bits": 2}]
    given = {"quantization_config": {"rules": rules, "calibration": {"method": "minmax", "batches": 1}}}
    section = {"dampening": 0.01, "freeze_threshold": 0.005, "momentum": 0.01}
    spec = make_spec(given, num_epochs=4, oscillation=section, qat_learning_rate=0.5)
    train(spec)
    results = Path(spec.results_dir)
    with (results / "metrics.csv").open() as file:
        terms = [row["dampening_loss"] for row in csv.DictReader(file)]
    assert terms[0] == ""
    assert 0 < float(terms[1]) < float(terms[-1])
    state = variables(results / "checkpoints" / "qat-0004.keras")
    qat = load_model(results / "qat.keras")
    kernels = {tuple(layer._kernel.shape) for layer in kernel_layers(qat)}
    frozen = [value for key, value in state.items() if value.shape in kernels and (value == oscillation.UNKNOWN).any()]
    assert any((value != oscillation.UNKNOWN).any() for value in frozen)
    # The trained model knows none of it.
    trained = variables(results / "qat.keras")
    assert not any((value == oscillation.UNKNOWN).any() for value in trained.values())
    assert all(layer._kernel.constraint is None for layer in kernel_layers(qat))
    (layer,) = kernel_layers(qat)[:1]
    mask = next(value for value in frozen if value.shape == tuple(layer._kernel.shape))
    held = mask != oscillation.UNKNOWN
    scale = layer.kernel_encoding().scale
    np.testing.assert_allclose(np.array(layer._kernel)[held], (mask * scale)[held], rtol=1e-5, atol=1e-7)


def test_kernels_with_a_zero_point_are_refused(monkeypatch):
    layer = QuantDense(1, weight_scheme=Scheme(symmetric=False))
    monkeypatch.setattr(oscillation, "kernel_layers", lambda model: [layer])
    with pytest.raises(TfqatError, match="has a zero point; expected symmetric"):
        calm(None, None, 1, freeze_threshold=0.1)


def test_a_constraint_of_the_users_own_comes_first_and_stays():
    image = keras.Input((4,))
    x = keras.layers.Dense(8, activation="relu", kernel_constraint=keras.constraints.NonNeg())(image)
    model = tfqat.prepare(keras.Model(image, keras.layers.Dense(2)(x)))
    inputs = np.random.default_rng(0).normal(0, 1, (32, 4)).astype(np.float32)
    tfqat.calibrate(model, [inputs])
    for _ in range(2):  # a second time, as after a recovery
        optimizer = keras.optimizers.SGD(0.5)
        optimizer.build(model.trainable_variables)
        calm(model, optimizer, 10, freeze_threshold=0.5)
    (layer,) = kernel_layers(model)
    assert isinstance(layer._kernel.constraint.inner, keras.constraints.NonNeg)
    model.compile(optimizer, "mse")
    model.fit(inputs, -np.ones((32, 2)), verbose=0)
    assert np.array(layer._kernel).min() >= 0
