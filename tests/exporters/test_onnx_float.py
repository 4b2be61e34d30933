"""Float ONNX: the same numbers as Keras, under Keras' names."""

from __future__ import annotations

import re
from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.exporters import onnx_file, onnx_float
from tfqat.exporters.onnx_float import OnnxError, convert
from tfqat.graph.build import build
from tfqat.graph.run import run
from tfqat.view.view import view


def wide_model() -> keras.Model:
    """Every layout question in one small model: two inputs and outputs, shared layer, transposed and depthwise
    convolutions, resizing, padding, slicing, concat of feature maps and of vectors, duplicates, NHWC output.
    """
    image, meta = keras.Input((16, 12, 3), name="image"), keras.Input((5,), name="meta")
    x = layers.Conv2D(8, 3, padding="same", name="stem", activation="relu")(image)
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    x = shared(shared(x))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="transposed", activation="relu")(x)
    x = layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="dilated")(x)
    y = layers.UpSampling2D(2, name="nearest")(layers.MaxPooling2D(2, name="max_pool")(x))
    x = layers.Add(name="join")([x, y])
    flat = layers.Flatten(name="flat")(layers.AveragePooling2D(2, padding="same", name="mean_pool")(x))
    first = layers.Dense(7, name="dense", activation="silu")(layers.Concatenate(name="both")([flat, meta]))
    x = layers.UpSampling2D(2, interpolation="bilinear", name="smooth")(x)
    x = keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])[:, 1:, :, :]
    one, two = layers.ReLU(name="one")(x), layers.ReLU(name="two")(x)  # the converter merges these
    x = layers.Concatenate(name="stack")([layers.Conv2D(4, 1, name="a")(one), layers.Conv2D(4, 1, name="b")(two)])
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = layers.Activation("gelu", name="gelu")(layers.Multiply(name="scale")([x, gate]))
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(layers.Activation("hard_silu", name="hard")(x))
    last = layers.ReLU(name="last")(layers.Conv2D(2, 1, name="conv_last")(x))
    return keras.Model([image, meta], {"x": first, "y": last}, name="wide")


@pytest.fixture(scope="module")
def flat_model():
    keras.utils.set_random_seed(0)
    model = build(view(wide_model()))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.2))
    return model


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return {
        "image": rng.normal(size=(3, 16, 12, 3)).astype("float32"),
        "meta": rng.normal(size=(3, 5)).astype("float32"),
    }


@pytest.fixture(scope="module")
def converted(flat_model):
    return convert(flat_model)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def tensors_of(model: onnx.ModelProto) -> list[str]:
    return [info.name for info in model.graph.input] + [name for node in model.graph.node for name in node.output]


def test_every_keras_tensor_is_there_with_its_values(flat_model, converted, inputs):
    graph = view(flat_model)
    expected = run(graph, inputs)
    assert set(converted.tensors) == {*graph.inputs, *(name for op in graph.ops for name in op.outputs)}
    model = onnx.ModelProto()
    model.CopyFrom(converted.model)
    wanted = list(dict.fromkeys(converted.tensors.values()))
    known = {*graph.inputs, *(info.name for info in model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    found = {**inputs, **dict(zip(names_of(model), session(model).run(None, inputs), strict=True))}
    for name, onnx_name in converted.tensors.items():
        value, other = np.asarray(expected[name]), found[onnx_name]
        layouts = [value, np.moveaxis(value, -1, 1)] if value.ndim == 4 else [value]
        errors = [np.abs(layout - other).max() for layout in layouts if layout.shape == other.shape]
        assert errors, (name, value.shape, other.shape)
        assert min(errors) < 2e-4 * max(1.0, np.abs(value).max()), name


def names_of(model: onnx.ModelProto) -> list[str]:
    return [info.name for info in model.graph.output]


def test_names_hold_what_readers_can_take(converted):
    names = tensors_of(converted.model)
    names += [node.name for node in converted.model.graph.node]
    names += [tensor.name for tensor in converted.model.graph.initializer]
    assert not [name for name in names if not re.fullmatch(r"[A-Za-z0-9_./\-]+", name)]
    assert max(Counter(tensors_of(converted.model)).values()) == 1
    assert max(Counter(node.name for node in converted.model.graph.node).values()) == 1


def test_nodes_and_weights_are_called_after_their_ops(converted):
    nodes = {node.name: node for node in converted.model.graph.node}
    assert list(nodes["stem"].input[1:]) == ["stem/kernel", "stem/bias"]
    assert list(nodes["shared/1"].input[1:]) == list(nodes["shared"].input[1:]) == ["shared/kernel", "shared/bias"]
    assert nodes["dense"].op_type == "Gemm"
    assert nodes["prelu"].op_type == "PRelu"
    assert nodes["transposed"].op_type == "ConvTranspose"
    assert converted.nodes["dense"] == ("dense",)
    assert {"separable/depthwise", "separable/pointwise"} <= set(nodes)


def test_the_graph_is_clean(converted):
    kinds = Counter(node.op_type for node in converted.model.graph.node)
    # One for the NHWC image, one for the flat vector in Keras' order, one for the NHWC output.
    assert kinds["Transpose"] == 3
    assert not set(kinds) & {"BatchNormalization", "Shape", "Gather", "Cast", "Unsqueeze", "Tile", "MatMul"}
    assert kinds["Resize"] == 2


def test_inputs_and_outputs(converted):
    graph = converted.model.graph
    shapes = {
        info.name: [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in [*graph.input, *graph.output]
    }
    assert shapes["image"] == ["batch", 16, 12, 3]
    assert shapes["meta"] == ["batch", 5]
    assert names_of(converted.model) == ["dense/silu", "last"]
    assert shapes["dense/silu"] == ["batch", 7]
    assert shapes["last"] == ["batch", 58, 50, 2] or shapes["last"][-1] == 2
    # The Keras tensor lies in front of the Transpose that gives the output its layout.
    assert converted.tensors["last"] == "last/transpose"


def test_names_of_the_user(flat_model, inputs):
    named = convert(flat_model, input_names=["pixels", "numbers"], output_names=["scores", "map"])
    assert [info.name for info in named.model.graph.input] == ["pixels", "numbers"]
    assert names_of(named.model) == ["scores", "map"]
    assert named.tensors["dense/silu"] == "scores"
    given = dict(zip(["pixels", "numbers"], inputs.values(), strict=True))
    assert session(named.model).run(["scores"], given)[0].shape == (3, 7)


BAD_NAMES = {
    "too few": {"input_names": ["a"]},
    "twice": {"output_names": ["a", "a"]},
    "a colon": {"output_names": ["a:0", "b"]},
    "a comma": {"input_names": ["a,b", "c"]},
    "no text": {"input_names": [1, 2]},
    "in and out": {"input_names": ["a", "b"], "output_names": ["b", "c"]},
}


@pytest.mark.parametrize("names", BAD_NAMES.values(), ids=BAD_NAMES)
def test_bad_names_are_refused(flat_model, names):
    with pytest.raises(TfqatError, match="names"):
        convert(flat_model, **names)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_opsets(flat_model, inputs, converted, opset):
    model = convert(flat_model, opset=opset).model
    assert [entry.version for entry in model.opset_import] == [opset]
    onnx.checker.check_model(model, full_check=True)
    for found, expected in zip(
        session(model).run(None, inputs), session(converted.model).run(None, inputs), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert [node.name for node in model.graph.node if node.op_type == "Conv"] == [
        node.name for node in converted.model.graph.node if node.op_type == "Conv"
    ]


@pytest.mark.parametrize("opset", [12, 99, "17"])
def test_an_opset_out_of_range_is_refused(flat_model, opset):
    with pytest.raises(OnnxError, match="opset"):
        convert(flat_model, opset=opset)


def test_the_same_model_gives_the_same_bytes(flat_model, converted, tmp_path):
    first = onnx_file.save(converted.model, tmp_path / "1.onnx").read_bytes()
    assert onnx_file.save(convert(flat_model).model, tmp_path / "2.onnx").read_bytes() == first


def test_a_model_of_2_gb_is_refused_before_it_is_converted():
    class Huge:
        name = "huge"
        weights = (np.broadcast_to(np.float32(0), (2**20, 2**10)),)

    with pytest.raises(OnnxError, match=r"4\.3 GB"):
        onnx_float.check_size(Huge())


def test_a_constant_that_a_layer_holds_becomes_an_initializer():
    image = keras.Input((4, 4, 3), name="image")
    normal = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 4.0, 4.0], name="normal")
    model = keras.Model(image, layers.Conv2D(1, 1, name="conv")(normal(image)))
    named = convert(model)
    assert [info.name for info in named.model.graph.input] == ["image"]
    given = np.ones((1, 4, 4, 3), "float32")
    np.testing.assert_allclose(session(named.model).run(None, {"image": given})[0], model(given), atol=1e-5)


def test_a_grouped_convolution_is_one_node():
    image = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(8, 3, groups=2, dilation_rate=2, bias_initializer="normal", name="grouped")(image)
    model = keras.Model(image, layers.Conv2D(8, 1, groups=8, use_bias=False, name="each")(x))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    found = convert(model).model
    assert [node.op_type for node in found.graph.node if node.op_type != "Transpose"] == ["Conv", "Conv"]
    assert np.allclose(session(found).run(None, {"image": x})[0], model(x), atol=1e-5)


def test_a_dense_on_a_sequence_is_a_product_and_its_bias():
    words = keras.Input((5, 4), name="words")
    x = layers.ReLU()(layers.Dense(6, bias_initializer="normal", name="first")(words))
    model = keras.Model(words, layers.Dense(3, use_bias=False, name="second")(x))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    found = convert(model).model
    assert [node.op_type for node in found.graph.node] == ["MatMul", "Add", "Relu", "MatMul"]
    assert np.allclose(session(found).run(None, {"words": x})[0], model(x), atol=1e-5)


def test_celu_is_spelled_with_exp():
    image = keras.Input((4,), name="image")
    model = keras.Model(image, layers.Activation("celu", name="celu")(image))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    assert np.allclose(session(convert(model).model).run(None, {"image": x})[0], model(x), atol=1e-5)


@pytest.mark.parametrize(("interpolation", "first"), [("nearest", False), ("bilinear", False), ("bilinear", True)])
def test_images_of_unknown_sizes_are_enlarged(interpolation, first):
    image = keras.Input((None, None, None), name="image")
    form = "channels_first" if first else "channels_last"
    up = layers.UpSampling2D((2, 3), form, interpolation, name="up")
    model = keras.Model(image, up(layers.ReLU(name="relu")(image)))
    opened = session(convert(model).model)
    for size in (4, 6):
        x = np.random.default_rng(0).normal(size=(2, size, size + 1, 3)).astype("float32")
        assert np.allclose(opened.run(None, {"image": x})[0], model(x), atol=1e-5)


def test_tokens_in_float_are_looked_up():
    tokens = keras.Input((5,), name="tokens")
    model = keras.Model(tokens, layers.Embedding(4, 3, name="rows")(tokens))
    x = np.array([[0, 3, 1, 2, 2]], "float32")
    assert np.allclose(session(convert(model).model).run(None, {"tokens": x})[0], model(x), atol=1e-5)


def test_an_op_without_an_onnx_form_is_named():
    image = keras.Input((4,), name="image")
    with pytest.raises(TfqatError, match="Erfinv"):
        convert(keras.Model(image, keras.ops.erfinv(image)))


def test_equal_ops_on_one_tensor_keep_nodes_of_their_own():
    """The converter merges them; a tensor that several ops read would then have one reader, and a fused one."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="start")(x)
    x = layers.BatchNormalization(name="norm", moving_mean_initializer="random_normal")(x)
    branches = [layers.Conv2D(4, 1, name=f"conv{i}")(layers.ReLU(6.0, name=f"relu{i}")(x)) for i in range(3)]
    named = convert(build(view(keras.Model(inputs, layers.Concatenate(name="end")(branches)))))
    nodes = {node.name: node for node in named.model.graph.node}
    assert [(nodes[f"relu{i}"].op_type, nodes[f"relu{i}"].input[0]) for i in range(3)] == [("Clip", "norm")] * 3
    assert [nodes[f"conv{i}"].input[0] for i in range(3)] == [f"relu{i}" for i in range(3)]
