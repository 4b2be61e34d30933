"""Spelled-out activations compute what Keras' own do."""

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.graph.build import build
from tfqat.graph.spelling import spell_out
from tfqat.view.view import view

KINDS = {
    "silu": ("silu", ["sigmoid", "multiply"]),
    "hard_sigmoid": ("hard_sigmoid", ["rescaling", "relu6", "rescaling"]),
    "hard_silu": ("hard_silu", ["rescaling", "relu6", "rescaling", "multiply"]),
}


@pytest.mark.parametrize(("activation", "kinds"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "alone"])
def test_values_and_kinds(activation, kinds, fused):
    image = keras.Input((4, 4, 2), name="image")
    conv = layers.Conv2D(3, 1, name="conv", activation=activation if fused else None)(image)
    model = keras.Model(image, conv if fused else layers.Activation(activation, name="act")(conv))
    graph = view(model)
    spelled = spell_out(graph, {activation})
    assert [op.kind for op in spelled.ops] == ["conv2d", *kinds]
    assert spelled.outputs == graph.outputs
    assert set(spelled.shapes) == {tensor for op in spelled.ops for tensor in (*op.inputs, *op.outputs)}
    x = np.random.default_rng(0).normal(scale=4, size=(5, 4, 4, 2)).astype("float32")
    assert np.allclose(build(spelled)(x), model(x), atol=1e-6)


def test_others_stay():
    image = keras.Input((4,), name="image")
    graph = view(keras.Model(image, layers.Activation("gelu", name="act")(image)))
    assert spell_out(graph, {"silu", "gelu"}).ops == graph.ops


@pytest.mark.parametrize("count", [2, 3])
def test_an_average_is_a_sum_and_a_scale(count):
    image = keras.Input((4, 4, 2), name="image")
    branches = [layers.Conv2D(3, 1, name=f"conv{number}")(image) for number in range(count)]
    model = keras.Model(image, layers.Average(name="average")(branches))
    spelled = spell_out(view(model), {"average"})
    assert [op.kind for op in spelled.ops[count:]] == ["add"] * (count - 1) + ["multiply_constant"]
    assert spelled.outputs == ("average",)
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")
    assert np.allclose(build(spelled)(x), model(x), atol=1e-6)


def test_a_mean_over_an_axis_stays():
    image = keras.Input((4, 3), name="image")
    graph = view(keras.Model(image, keras.ops.average(image, axis=1)))
    assert [op.kind for op in spell_out(graph, {"average"}).ops] == ["average"]
