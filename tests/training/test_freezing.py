"""Freezing: what the spec names stays as it is, bit for bit, in both phases; the rest learns."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.jobs.train import train
from tfqat.models.load import load_model
from tfqat.training.freezing import freeze_layers

NAMES = ("stem_conv", "stem_bn", "conv", "bn", "head")
WEIGHTS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def named_net(input_shape=(8, 8, 1), num_classes=10):
    """A stem, a model within the model, and a head."""
    inner = keras.Input((3, 3, 4))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inner)
    body = keras.Model(inner, layers.ReLU()(layers.BatchNormalization(name="bn")(x)), name="body")
    image = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name="stem_conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_bn")(x))
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(body(x))))


def weights_of(model):
    """Layer -> its weights, in the float model and in the flat one prepared from it."""
    layers = model._flatten_layers(include_self=False)
    found = {layer.name.rpartition(">")[2]: layer for layer in layers}
    return {name: {v.name: np.array(v) for v in found[name].variables if v.name in WEIGHTS} for name in NAMES}


def trained(make_spec, user_module, **training):
    """The weights before, after the float phase and after the quantized one."""
    user_module.net = named_net
    spec = make_spec(float_epochs=2, num_epochs=2, optimizer={"learning_rate": 0.1}, **training)
    train(spec)
    results = Path(spec.results_dir)
    models = [load_model(results / name) for name in ("float.keras", "qat.keras")]
    keras.utils.set_random_seed(spec.random_seed)
    return [weights_of(model) for model in (named_net(), *models)]


def moved(before, after):
    """The weights that are not what they were."""
    return {
        f"{layer}.{name}"
        for layer, values in before.items()
        for name, value in values.items()
        if (value != after[layer][name]).any()
    }


EVERYTHING = {
    "stem_conv.kernel", "stem_bn.gamma", "stem_bn.beta", "stem_bn.moving_mean", "stem_bn.moving_variance",
    "conv.kernel", "bn.gamma", "bn.beta", "bn.moving_mean", "bn.moving_variance",
    "head.kernel", "head.bias",
}  # fmt: skip


def of(*layer_names):
    return {name for name in EVERYTHING if name.split(".")[0] in layer_names}


# What the spec says -> what stays.
CASES = {
    "a_pattern": ({"freeze": ["stem_*"]}, "learned", of("stem_conv", "stem_bn")),
    "a_model_within_and_a_layer": ({"freeze": ["head", "body"]}, "moving_average", of("conv", "bn", "head")),
    "batch_norms": ({"freeze": ["conv"], "freeze_batch_norm": True}, "moving_average", of("conv", "bn", "stem_bn")),
}


@pytest.mark.parametrize(("training", "ranges", "stays"), CASES.values(), ids=CASES)
def test_what_stays_and_what_learns(training, ranges, stays, make_spec, user_module):
    make = partial(make_spec, {"quantization_config": {"ranges": ranges}})
    first, after_float, after_qat = trained(make, user_module, **training)
    assert {f"{layer}.{name}" for layer, values in first.items() for name in values} == EVERYTHING
    assert moved(first, after_float) == EVERYTHING - stays
    assert moved(after_float, after_qat) == EVERYTHING - stays


def test_a_pattern_that_no_layer_has(make_spec, user_module):
    user_module.net = named_net
    with pytest.raises(
        TfqatError, match=r"freeze: no layer's name matches 'stme_\*'; the model has stem_conv, stem_bn"
    ):
        train(make_spec(freeze=["stem_*", "stme_*"]))


def test_nothing_left_to_learn(make_spec, user_module):
    user_module.net = named_net
    with pytest.raises(TfqatError, match="leaves nothing to learn"):
        train(make_spec(freeze=["*"]))


def test_case_matters(make_spec):
    with pytest.raises(TfqatError, match="no layer's name matches 'STEM_CONV'"):
        freeze_layers(named_net(), make_spec(freeze=["STEM_CONV"]).training)
