"""Convolutions of every kind and form in ONNX: the numbers of Keras by onnxruntime, one node each, Q/DQ at it."""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

import tfqat
from tfqat.exporters import carry, onnx_qdq
from tfqat.exporters.onnx_float import convert
from tfqat.exporters.onnx_qdq import weights_of
from tfqat.graph.build import build
from tfqat.rewrite.split import split
from tfqat.view.view import view

NORMAL = keras.initializers.RandomNormal(0, 0.5, seed=1)
# No width of an output: see the test of the bias below.
FILTERS = 22
SHAPES = {1: (12, 4), 2: (8, 7, 4), 3: (5, 6, 4, 4)}
CLASSES = {
    f"{prefix}{name}{dims}D{suffix}": dims
    for dims in (1, 2, 3)
    for prefix, name, suffix in (("", "Conv", ""), ("", "Conv", "Transpose"), ("Depthwise", "Conv", ""))
    if hasattr(layers, f"{prefix}{name}{dims}D{suffix}")
}
FORMS = {
    "plain": {},
    "same": {"padding": "same"},
    "same, strides": {"padding": "same", "strides": 2},
    "strides beyond the kernel": {"kernel_size": 2, "strides": 3},
    "dilated": {"padding": "same", "dilation_rate": 2},
    "without bias": {"use_bias": False},
    "channels first": {"data_format": "channels_first"},
    "any size": {"padding": "same", "strides": 2, "any_size": True},
    "groups": {"groups": 2, "padding": "same"},
    "groups, channels first": {"groups": 2, "data_format": "channels_first"},
    "causal": {"padding": "causal", "dilation_rate": 2},
    "causal, groups": {"padding": "causal", "groups": 2},
    "output padding": {"strides": 2, "output_padding": 1},
    "output padding, same": {"strides": 2, "output_padding": 1, "padding": "same"},
}


def fits(name: str, form: str) -> bool:
    wanted = {"groups": name.startswith("Conv") and "Transpose" not in name, "causal": name == "Conv1D"}
    wanted["output"] = "Transpose" in name
    return all(allowed for word, allowed in wanted.items() if form.startswith(word))


CASES = [(name, form) for name in CLASSES for form in FORMS if fits(name, form)]


def model_of(name: str, form: str) -> keras.Model:
    options = {"kernel_size": 3, **FORMS[form]}
    size, dims = SHAPES[CLASSES[name]], CLASSES[name]
    if options.pop("any_size", False):
        size = (*[None] * dims, size[-1])
    if options.get("data_format") == "channels_first":
        size = (size[-1], *size[:-1])
    options |= {"depth_multiplier": 2} if name.startswith("Depthwise") else {"filters": FILTERS}
    x = image = keras.Input(size, name="image")
    x = getattr(layers, name)(**options, bias_initializer=NORMAL, activation="relu", name="conv")(x)
    return build(view(keras.Model(image, x)))


def images_for(model: keras.Model) -> np.ndarray:
    shape = [size or 6 for size in model.inputs[0].shape[1:]]
    return np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")


@pytest.mark.parametrize(("name", "form"), CASES, ids=[f"{name}-{form}" for name, form in CASES])
def test_it_is_one_node_and_computes_the_same(name, form):
    model = model_of(name, form)
    found = convert(model).model
    x = images_for(model)
    session = onnxruntime.InferenceSession(found.SerializeToString())
    (value,) = session.run(None, {"image": x})
    np.testing.assert_allclose(value, model(x), rtol=1e-5, atol=1e-5)
    kind = "ConvTranspose" if "Transpose" in name else "Conv"
    kinds = [node.op_type for node in found.graph.node if node.op_type != "Transpose"]
    assert kinds == [kind, "Relu"]
    (node,) = (node for node in found.graph.node if node.op_type == kind)
    assert node.name == "conv"
    assert ["conv/kernel", "conv/bias"][: len(node.input) - 1] == list(node.input)[1:]
    assert (len(node.input) == 3) is FORMS[form].get("use_bias", True)
    (kernel,) = (tensor for tensor in found.graph.initializer if tensor.name == "conv/kernel")
    assert len(kernel.dims) == CLASSES[name] + 2


def test_where_channels_and_width_are_equal_the_bias_goes_where_keras_adds_it():
    """Keras tells the axis of a bias by its size there; what counts is what the model computes."""
    image = keras.Input((4, 8, 7), name="image")
    conv = layers.Conv2D(5, 3, data_format="channels_first", bias_initializer=NORMAL, name="conv")
    model = keras.Model(image, conv(image))
    x = images_for(model)
    session = onnxruntime.InferenceSession(convert(model).model.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"image": x})[0], model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_its_kernel_has_a_scale_an_output_channel_beside_it(name):
    dims = CLASSES[name]
    x = image = keras.Input(SHAPES[dims], name="image")
    options = {"depth_multiplier": 2} if name.startswith("Depthwise") else {"filters": FILTERS}
    x = getattr(layers, name)(kernel_size=3, padding="same", use_bias=False, name="conv", **options)(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    model = keras.Model(image, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))
    qat = tfqat.prepare(model, relu6=())
    assert {row.op: row.state for row in qat.placement.rows}["conv"] == "int8"
    assert {row.op: row.macs for row in qat.placement.rows}["conv"] > 0
    data = images_for(model)
    tfqat.calibrate(qat, [data], method="minmax", batches=1)
    plain, learnt = split(tfqat.finalize(qat))
    assert "norm" not in {op.name for op in view(plain).ops}
    named = convert(plain)
    assert learnt.weights["conv"].scale.shape == (8 if name.startswith("Depthwise") else FILTERS,)
    weight = weights_of(named.model)["conv"]
    kernel = next(tensor for tensor in named.model.graph.initializer if tensor.name == weight.initializer)
    assert (kernel.dims[weight.axis],) == learnt.weights["conv"].scale.shape
    quantized = onnx_qdq.insert(named.model, carry.to_onnx(named, learnt))
    conv = next(node for node in quantized.graph.node if node.name == "conv")
    producers = {name: node.op_type for node in quantized.graph.node for name in node.output}
    assert [producers.get(name) for name in conv.input[:2]] == ["DequantizeLinear"] * 2
    readers = [node.op_type for node in quantized.graph.node if conv.output[0] in node.input]
    assert readers == ["Relu"]


def test_two_convolutions_along_one_axis_read_the_same_sequence():
    words = keras.Input((9, 4), name="words")
    one, other = layers.Conv1D(3, 3, name="one")(words), layers.Conv1D(3, 3, dilation_rate=2, name="other")(words)
    pooled = layers.MaxPooling1D(2, name="pool")(words)
    model = keras.Model(words, [one, other, pooled])
    x = images_for(model)
    found = convert(model).model
    session = onnxruntime.InferenceSession(found.SerializeToString())
    for value, expected in zip(session.run(None, {"words": x}), model(x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert {node.op_type for node in found.graph.node} == {"Transpose", "Conv", "MaxPool"}
