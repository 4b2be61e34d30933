"""What does nothing at inference is gone from a finalized model, wherever it stood."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.view.view import view

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")


def finalized(model):
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, IMAGES)
    return tfqat.finalize(qat)


@pytest.mark.parametrize("first", [layers.RandomFlip(), layers.RandomBrightness(0.2), layers.Dropout(0.5)])
def test_at_the_input_it_is_gone_and_the_model_exports(first, tmp_path):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu")(first(layers.GaussianNoise(0.1)(inputs)))
    final = finalized(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    assert not {"random_flip", "random_brightness", "dropout", "gaussian_noise"} & {op.kind for op in view(final).ops}
    tfqat.export(final, tmp_path, formats=["qdq_onnx"])


def test_an_output_that_is_an_input_comes_from_a_plain_identity():
    """A model needs an op behind each output; one that draws random numbers at inference could not be exported."""
    inputs = keras.Input((8, 8, 3), name="image")
    seen = layers.RandomFlip(name="seen")(layers.RandomContrast(0.5)(inputs))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(seen))
    final = finalized(keras.Model(inputs, [layers.Dense(2)(x), seen]))
    kinds = [op.kind for op in view(final).ops]
    assert kinds.count("identity") == 1
    assert not {"random_flip", "random_contrast"} & set(kinds)
    assert np.array_equal(final(IMAGES)[1], IMAGES)
