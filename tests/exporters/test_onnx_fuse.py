"""Ops that the converter spells as several nodes become one node again, with the same numbers."""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

from tfqat.exporters.onnx_float import convert

SHAPES = {
    "a slope an element": ((5, 4, 3), {}),
    "a slope a channel": ((5, 4, 3), {"shared_axes": [1, 2]}),
    "a slope a row": ((5, 4, 3), {"shared_axes": [2, 3]}),
    "a vector": ((6,), {}),
}


@pytest.mark.parametrize(("shape", "config"), SHAPES.values(), ids=SHAPES)
def test_prelu_is_one_node(shape, config):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, name="x")
    first = layers.Conv2D(3, 1, name="first") if len(shape) == 3 else layers.Dense(6, name="first")
    model = keras.Model(x, layers.PReLU(name="prelu", **config)(first(x)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    converted = convert(model).model
    kinds = [node.op_type for node in converted.graph.node]
    assert (kinds.count("PRelu"), kinds.count("Relu"), kinds.count("Neg")) == (1, 0, 0)
    values = rng.normal(size=(7, *shape)).astype("float32")
    found = onnxruntime.InferenceSession(converted.SerializeToString()).run(None, {"x": values})[0]
    np.testing.assert_allclose(found, model(values).numpy(), atol=1e-5)
