"""The optimizer that a spec asks for."""

from __future__ import annotations

import keras
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
