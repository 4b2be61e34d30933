"""Functions of the user's own as activations: seen inside where that can be, elsewhere kept as one op, and why."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfqat
from tfqat.graph.build import build
from tfqat.view.view import view

VALUES = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")


def relu(x):
    """Not Keras' own of that name."""
    return ops.minimum(ops.relu(x), 0.3) * 2


def straight(x):
    return tf.nn.relu(x) - x


class Gate(layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return x * ops.sigmoid(self.gain * x)


def model_with(*made):
    inputs = keras.Input((6,), name="x")
    tensor = layers.Dense(6, name="first")(inputs)
    for layer in made:
        tensor = layer(tensor)
    return keras.Model(inputs, layers.Dense(2, name="last")(tensor))


SEEN = {
    "a function": lambda: layers.Dense(6, activation=relu, name="own"),
    "a lambda": lambda: layers.Dense(6, activation=lambda x: 5 * ops.sigmoid(x), name="own"),
    "a partial": lambda: layers.Dense(6, activation=partial(ops.leaky_relu, negative_slope=0.4), name="own"),
    "a layer": lambda: layers.Dense(6, activation=Gate(), name="own"),
    "Activation": lambda: layers.Activation(relu, name="own"),
    "EinsumDense": lambda: layers.EinsumDense("bc,cd->bd", (6,), activation=relu, name="own"),
    "with a regularizer": lambda: layers.Dense(6, activation=relu, activity_regularizer="l2", name="own"),
}


@pytest.mark.parametrize("make", SEEN.values(), ids=SEEN)
def test_an_activation_of_the_users_is_seen_inside(make):
    model = model_with(make())
    graph = view(model)
    assert not [op.name for op in graph.ops if op.reason or op.kind.startswith("custom")]
    rebuilt = build(graph)
    np.testing.assert_allclose(rebuilt(VALUES), model(VALUES), rtol=1e-5, atol=1e-6)
    assert float(sum(rebuilt.losses)) == pytest.approx(float(sum(model.losses)), rel=1e-5)


@pytest.mark.parametrize("make", SEEN.values(), ids=SEEN)
def test_what_was_prepared_loads_without_the_users_function(make, tmp_path):
    qat = tfqat.prepare(model_with(make()))
    tfqat.calibrate(qat, [VALUES])
    qat.save(tmp_path / "qat.keras")
    np.testing.assert_array_equal(tfqat.load_model(tmp_path / "qat.keras")(VALUES), qat(VALUES))


def test_one_that_cannot_be_seen_inside_stays_float_and_says_where():
    model = model_with(layers.Dense(6, activation=straight, name="own"))
    row = next(row for row in tfqat.placement(model).rows if row.op == "own/straight")
    assert (row.kind, row.state) == ("custom_straight", "float")
    assert "tf.nn.relu(x) - x" in row.reason
    assert "keras.ops" in row.reason
    np.testing.assert_allclose(build(view(model))(VALUES), model(VALUES), rtol=1e-5, atol=1e-6)
    assert tfqat.placement(model).weights.keys() >= {"first", "own"}


def test_tensorflows_functions_are_keras_own_by_name():
    kinds = [op.kind for op in view(model_with(layers.Dense(6, activation=tf.nn.relu))).ops]
    assert kinds == ["dense", "dense", "relu", "dense"]


def test_a_prediction_in_its_unit_stays_float():
    inputs = keras.Input((6,))
    tensor = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(1, activation=lambda x: 40 * ops.sigmoid(x) - 20, name="degrees")(tensor))
    states = {row.op: row.state for row in tfqat.placement(model).rows if row.op.startswith("degrees")}
    assert len(states) == 4
    assert set(states.values()) == {"float"}
