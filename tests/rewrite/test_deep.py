"""A chain of a thousand layers: Keras' recursion must not stop any verb."""

import sys

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
    _, encodings = split(tfqat.finalize(loaded))
    assert len(encodings.activations) == 501
    assert sys.getrecursionlimit() == limit
