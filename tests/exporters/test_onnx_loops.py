"""Graphs inside nodes, such as the Loop of a recurrent layer, read what the graph around them has, by its new names."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import tfqat


def model(recurrent):
    inputs = keras.Input((8, 4), name="steps")
    x = layers.Dense(4, activation="relu", name="before")(inputs)
    x = layers.Dense(4, name="behind")(recurrent(x))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


@pytest.mark.parametrize(
    "recurrent",
    [
        layers.SimpleRNN(4, return_sequences=True),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]),
        layers.Bidirectional(layers.SimpleRNN(3)),
        layers.LSTM(4),
    ],
    ids=lambda layer: layer.name,
)
def test_a_recurrent_layer_between_int8_ones_is_exported(recurrent, tmp_path):
    keras.utils.set_random_seed(0)
    qat = tfqat.prepare(model(recurrent))
    steps = np.random.default_rng(0).normal(size=(16, 8, 4)).astype("float32")
    tfqat.calibrate(qat, steps)
    tfqat.export(qat, tmp_path, formats=["qdq_onnx"])
    onnx.checker.check_model(onnx.load(tmp_path / "model.qdq.onnx"), full_check=True)
    assert tfqat.verify(qat, tmp_path, steps).passed
