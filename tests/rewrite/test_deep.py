"""Models of many layers: Keras' recursion must not stop any verb, and tfqat's work must not outgrow them."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfqat
from tfqat.graph.depth import room_for
from tfqat.rewrite.split import split


@pytest.fixture(scope="module")
def chain():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4,), name="x")
    for number in range(500):
        x = keras.layers.Dense(4, kernel_initializer="orthogonal", name=f"d{number}")(x)
        x = keras.layers.LeakyReLU(0.9, name=f"r{number}")(x)
    with room_for(1000):
        return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def test_every_verb_works_on_a_thousand_layers(chain, tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    limit = sys.getrecursionlimit()
    qat = tfqat.prepare(chain, relu6=[])
    tfqat.calibrate(qat, [x])
    qat.save(tmp_path / "x.keras")
    loaded = tfqat.load_model(tmp_path / "x.keras")
    assert np.array_equal(loaded(x), qat(x))
    assert np.array_equal(keras.models.load_model(tmp_path / "x.keras")(x), qat(x))
    _, encodings = split(tfqat.finalize(loaded))
    assert len(encodings.activations) == 501
    assert sys.getrecursionlimit() == limit


def blocks(count):
    """Residual blocks, every third one three branches and a Concat; 5 or 9 ops each."""
    x = inputs = keras.Input((4,), name="x")
    for number in range(count):
        branches = 3 if number % 3 == 2 else 1
        parts = [keras.layers.Dense(4, use_bias=False, name=f"d{number}_{part}")(x) for part in range(branches)]
        parts = [keras.layers.BatchNormalization(name=f"n{number}_{part}")(y) for part, y in enumerate(parts)]
        parts = [keras.layers.ReLU(name=f"r{number}_{part}")(y) for part, y in enumerate(parts)]
        y = keras.layers.Concatenate(name=f"c{number}")(parts) if branches > 1 else parts[0]
        y = keras.layers.Dense(4, name=f"e{number}")(y)
        x = keras.layers.Add(name=f"a{number}")([x, y])
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def lines_of_tfqat(call):
    """What the call returns, and how many lines of tfqat run in it, each turn of a loop counted: time without clock."""
    folder, count = str(Path(tfqat.__file__).parent), 0

    def inside(frame, event, argument):
        nonlocal count
        count += 1
        return inside

    def enter(frame, event, argument):
        return inside(frame, event, argument) if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        result = call()
    finally:
        sys.settrace(before)
    return result, count


def test_work_grows_as_the_model_does():
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    work = {"prepare": [], "calibrate": [], "finalize": []}
    for count in (6, 18, 30):
        model = blocks(count)
        qat, lines = lines_of_tfqat(lambda model=model: tfqat.prepare(model))
        work["prepare"].append(lines)
        work["calibrate"].append(lines_of_tfqat(lambda qat=qat: tfqat.calibrate(qat, [x], method="minmax"))[1])
        work["finalize"].append(lines_of_tfqat(lambda qat=qat: tfqat.finalize(qat))[1])
    # As many blocks more each time: as much work more.
    growth = {verb: (large - middle) / (middle - small) for verb, (small, middle, large) in work.items()}
    assert {verb: ratio for verb, ratio in growth.items() if ratio > 1.02} == {}
