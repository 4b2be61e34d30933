"""A viewed model is run at inference, whatever its layers take silence for."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tfqat.graph.run import run
from tfqat.view.view import view


def test_layers_that_augment_leave_images_alone():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.RandomBrightness(0.5, name="brightness")(inputs)
    model = keras.Model(inputs, layers.Dropout(0.5, name="dropout")(x))
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    tensors = run(view(model), {"image": images})
    assert np.array_equal(tensors["brightness"], images)
    assert np.array_equal(tensors["dropout"], images)


def test_what_a_visitor_gives_is_what_readers_read():
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, layers.ReLU(name="second")(layers.ReLU(name="first")(inputs)))
    values = np.float32([[1, -1]])
    tensors = run(view(model), {"x": values}, lambda op, outs: [v + 1 for v in outs] if op.name == "first" else outs)
    assert np.array_equal(tensors["second"], [[2, 1]])


def test_only_what_is_to_be_kept_is_kept():
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, layers.ReLU(name="second")(layers.ReLU(name="first")(inputs)))
    assert set(run(view(model), {"x": np.zeros((1, 2), "float32")}, keep=["second"])) == {"second"}
