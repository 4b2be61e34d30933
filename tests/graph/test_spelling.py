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
