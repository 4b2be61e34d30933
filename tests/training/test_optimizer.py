"""The optimizer that a spec asks for."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfqat.spec.schema import Optimizer, Training
from tfqat.training.optimizer import make_optimizer


@pytest.mark.parametrize(
    ("name", "cls"),
    [("sgd", keras.optimizers.SGD), ("adam", keras.optimizers.Adam), ("adamw", keras.optimizers.AdamW)],
)
def test_kinds(name, cls):
    optimizer = make_optimizer(Training(optimizer=Optimizer(name=name, weight_decay=0.01, momentum=0.8)), "float", 10)
    assert type(optimizer) is cls
    assert optimizer.weight_decay == 0.01
    assert name != "sgd" or optimizer.momentum == 0.8


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_without_weight_decay_a_weight_without_gradient_stays(name):
    """The default of the spec, which AdamW's own is not."""
    optimizer = make_optimizer(Training(optimizer=Optimizer(name=name)), "float", 10)
    weight = keras.Variable([3.0])
    optimizer.build([weight])
    optimizer.apply([keras.ops.zeros((1,))], [weight])
    assert float(weight[0]) == 3.0


@pytest.mark.parametrize(
    ("phase", "qat_rate", "expected"), [("float", 0.5, 0.2), ("qat", None, 0.02), ("qat", 0.5, 0.5)]
)
def test_rates(phase, qat_rate, expected):
    section = Optimizer(learning_rate=0.2, schedule="constant")
    training = Training(optimizer=section, qat_learning_rate=qat_rate)
    assert float(make_optimizer(training, phase, 10).learning_rate) == pytest.approx(expected)


def test_cosine_ends_at_zero_with_the_phase():
    optimizer = make_optimizer(Training(optimizer=Optimizer(learning_rate=0.2)), "float", 10)
    weight = keras.Variable([1.0])
    optimizer.build([weight])
    rates = []
    for _ in range(11):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.ones((1,))], [weight])
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_longer_gradients_are_scaled_over_all_weights_together(name):
    """Of length 13 in two weights: both are scaled by 2 / 13; a shorter one stays."""
    section = Optimizer(name=name, learning_rate=1.0, schedule="constant", momentum=0.0, clip_norm=2.0)
    optimizer = make_optimizer(Training(optimizer=section), "float", 10)
    weights = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    optimizer.build(weights)
    seen = []
    optimizer.update_step = lambda g, v, rate: seen.append(np.array(g))
    optimizer.apply([keras.ops.array([3.0, 4.0]), keras.ops.array([12.0])], weights)
    optimizer.apply([keras.ops.array([0.0, 0.5]), keras.ops.array([-0.5])], weights)
    expected = [[6 / 13, 8 / 13], [24 / 13], [0.0, 0.5], [-0.5]]
    for found, wanted in zip(seen, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
