"""A TimeDistributed is its layer on the steps of all images at once."""

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.graph.build import build
from tfqat.view.view import view

FRAMES = np.random.default_rng(0).normal(size=(4, 3, 8, 8, 2)).astype("float32")


def frame_model():
    image = keras.Input((8, 8, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(image))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.ReLU()(x)), name="frame")


REPEATED = {
    "a convolution": lambda: layers.Conv2D(4, 3, activation="relu"),
    "a model": frame_model,
    "a Sequential": lambda: keras.Sequential([layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(4)]),
    "a layer without weights": lambda: layers.MaxPooling2D(2),
}


def model_of(layer, steps=3):
    frames = keras.Input((steps, 8, 8, 2), name="frames")
    x = layers.TimeDistributed(layer, name="each")(layers.Conv3D(2, 1, name="mix")(frames))
    return keras.Model(frames, layers.Dense(2, name="last")(layers.Dense(4, name="before")(layers.Flatten()(x))))


@pytest.mark.parametrize("make", REPEATED.values(), ids=REPEATED)
def test_it_computes_the_same_and_is_int8_from_end_to_end(make, tmp_path):
    model = model_of(make())
    graph = view(model)
    np.testing.assert_allclose(build(graph)(FRAMES), model(FRAMES), rtol=1e-5, atol=1e-5)
    qat = tfqat.prepare(model)
    assert [row.op for row in qat.placement.rows if row.state == "float"] == ["last"]
    tfqat.calibrate(qat, [FRAMES])
    tfqat.export(qat, tmp_path)
    assert tfqat.verify(qat, tmp_path, FRAMES).passed


def test_an_inner_layer_that_is_called_elsewhere_too_stays_one_layer():
    conv = layers.Conv2D(4, 3, name="conv")
    frames, image = keras.Input((3, 8, 8, 2)), keras.Input((8, 8, 2))
    model = keras.Model([frames, image], [layers.TimeDistributed(conv, name="each")(frames), conv(image)])
    built = build(view(model))
    assert sum(isinstance(layer, layers.Conv2D) for layer in built.layers) == 1


def test_it_trains(tmp_path):
    qat = tfqat.prepare(model_of(frame_model()))
    qat.compile("adam", "mse")
    before = [np.array(v) for v in qat.trainable_variables]
    qat.fit(FRAMES, np.ones((4, 2)), verbose=0)
    assert not any(np.array_equal(a, v) for a, v in zip(before, qat.trainable_variables, strict=True))


def test_open_lengths_stay_float_and_say_what_to_do():
    frames = keras.Input((None, 8, 8, 2))
    x = layers.TimeDistributed(layers.Conv2D(4, 3), name="each")(frames)
    rows = tfqat.placement(keras.Model(frames, layers.Dense(2)(layers.Dense(4)(x)))).rows
    assert [(row.state, row.reason) for row in rows if row.kind == "time_distributed"] == [
        ("float", "not seen inside: its number of steps is unknown; give the Input a fixed one")
    ]
