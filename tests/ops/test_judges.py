"""The judges see what they are there to see."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.rewrite.model import kernel_layers

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("ops_script", ROOT / "scripts/ops.py")
script = sys.modules.setdefault("ops_script", importlib.util.module_from_spec(_spec))
if not hasattr(script, "EXAMPLES"):
    _spec.loader.exec_module(script)
judges = script.load("judges")


def net():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="conv")(inputs))
    x = layers.UpSampling2D(2, interpolation="bilinear", name="larger")(layers.ReLU(name="act")(x))
    x = layers.Conv2D(4, 3, name="last", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


@pytest.fixture(params=["tensorrt", "tflite"])
def both(request):
    keras.utils.set_random_seed(0)
    images = {"image": np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")}
    qat = tfqat.prepare(net(), request.param)
    tfqat.calibrate(qat, images["image"], method="minmax")
    return qat, tfqat.finalize(qat), images


def test_a_model_that_is_right_passes(both):
    """Its bilinear resize puts values half-way between two integers, which no program rounds as another does."""
    qat, final, images = both
    scores, differing = judges.finalized_blocks(qat, final, images)
    assert scores
    assert not [*judges.failed(scores), *differing]
    assert not judges.onnx_problems(final, images)


@pytest.mark.parametrize("name", ["conv", "last"])
def test_a_wrong_kernel_is_seen_in_its_block_alone(both, name):
    qat, final, images = both
    layer = next(layer for layer in kernel_layers(final) if layer.name == name)
    layer.weights[0].assign(np.asarray(layer.weights[0]) * 1.05)
    scores, _ = judges.finalized_blocks(qat, final, images)
    assert len(judges.failed(scores)) == 1


def test_a_wrong_output_layer_is_seen(both):
    qat, final, images = both
    head = final.get_layer("head")
    head.weights[0].assign(np.asarray(head.weights[0]) * 1.05)
    scores, differing = judges.finalized_blocks(qat, final, images)
    assert differing or judges.failed(scores)


def test_outputs_that_differ_are_told():
    assert judges.differences([np.ones(3)], [np.ones(3) * (1 + 1e-6)]) == []
    assert judges.differences([np.ones(3)], [np.ones(3) * 1.001])
    assert judges.differences([np.ones(3)], [np.ones((3, 1))])
