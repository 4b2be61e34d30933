"""Q/DQ ONNX from anywhere, built as PyTorch's exporter, TensorRT's toolkit and ONNX Runtime's quantizer write it.

The judge is ONNX Runtime: the Q/DQ ONNX that is made again of the clean one and its encodings gives the same outputs.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.core.scheme import Scheme
from tfqat.exporters import onnx_qdq, onnx_qdq_read
from tfqat.exporters.onnx_qdq import OUTPUT, UNQUANTIZED_READERS
from tfqat.exporters.onnx_qdq_read import QdqReadError

F, I8, U8 = np.float32, np.int8, np.uint8
ZERO = I8(0)
X = (2, 3, 8, 8)


class Torch:
    """Writes nodes as torch.onnx.export names them; scales and zero points are Constant nodes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def node(self, kind: str, inputs: list[str], name: str, domain: str = "", **attributes) -> str:
        output = f"/{name}/{kind}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [output], f"/{name}/{kind}", domain=domain, **attributes))
        return output

    def constant(self, value, name: str) -> str:
        output = f"/{name}/Constant_output_0"
        value = numpy_helper.from_array(np.asarray(value), "")
        self.nodes.append(helper.make_node("Constant", [], [output], f"/{name}/Constant", value=value))
        return output

    def weight(self, name: str, *shape: int, dtype=F) -> str:
        values = self.rng.normal(size=shape) if dtype is F else self.rng.integers(-127, 128, shape)
        self.constants.append(numpy_helper.from_array(values.astype(dtype), name))
        return name

    def numbers(self, name: str, scale, zero_point) -> list[str]:
        return [self.constant(F(scale), f"{name}/scale"), self.constant(zero_point, f"{name}/zero_point")]

    def fake(self, x: str, name: str, scale=0.05, zero_point=ZERO, **attributes) -> str:
        """QuantizeLinear and DequantizeLinear on one pair of constants."""
        numbers = self.numbers(name, scale, zero_point)
        q = self.node("QuantizeLinear", [x, *numbers], name, **attributes)
        return self.node("DequantizeLinear", [q, *numbers], name, **attributes)

    def kernel(self, name: str, channels: int, *shape: int) -> str:
        """A float weight behind a pair per output channel."""
        weight = self.weight(f"{name}.weight", *shape)
        scale = np.abs(numpy_helper.to_array(self.constants[-1])).reshape(channels, -1).max(axis=1) / F(127)
        return self.fake(weight, f"{name}/_weight_quantizer", scale, np.zeros(channels, I8), axis=0)

    def model(self, output: str, opset: int = 13, inputs=(("input.1", TensorProto.FLOAT, X),), rank: int = 4):
        graph = helper.make_graph(
            self.nodes,
            "main_graph",
            [helper.make_tensor_value_info(*row) for row in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)],
            self.constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        )
        model.ir_version = 8 if opset < 21 else 10
        return model


def run(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    x = np.random.default_rng(1).normal(size=X).astype(F)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# A residual block as pytorch-quantization's quant_modules and residual_quantizer write it.


def resnet() -> onnx.ModelProto:
    t = Torch()
    x = t.fake("input.1", "conv1/_input_quantizer", 0.03)
    x = t.node("Conv", [x, t.kernel("conv1", 4, 4, 3, 3, 3), t.weight("conv1.bias", 4)], "conv1", pads=[1, 1, 1, 1])
    x = t.node("MaxPool", [t.node("Relu", [x], "relu")], "maxpool", kernel_shape=[2, 2], strides=[2, 2])
    y = t.fake(x, "layer1.0/conv1/_input_quantizer", 0.02)
    y = t.node("Conv", [y, t.kernel("layer1.0.conv1", 4, 4, 4, 3, 3)], "layer1.0/conv1", pads=[1, 1, 1, 1])
    # The same range for the same tensor, in a quantizer of its own.
    identity = t.fake(x, "layer1.0/residual_quantizer", 0.02)
    y = t.node("Relu", [t.node("Add", [y, identity], "layer1.0")], "layer1.0/relu")
    y = t.node("Flatten", [t.node("GlobalAveragePool", [y], "avgpool")], "flatten")
    y = t.fake(y, "fc/_input_quantizer", 0.01)
    y = t.node("Gemm", [y, t.kernel("fc", 5, 5, 4), t.weight("fc.bias", 5)], "fc", transB=1)
    return t.model(y, rank=2)


def test_a_residual_network_of_pytorch():
    model = resnet()
    found = onnx_qdq_read.read(model)
    onnx.checker.check_model(found.model, full_check=True)
    assert kinds(found.model) == [
        "Conv",
        "Relu",
        "MaxPool",
        "Conv",
        "Add",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    scales = {name: float(e.scale) for name, e in found.encodings.activations.items()}
    assert scales == {
        "input.1": F(0.03),
        "/maxpool/MaxPool_output_0": F(0.02),
        "/flatten/Flatten_output_0": F(0.01),
    }
    assert {e.origin for e in found.encodings.activations.values()} == {"imported"}
    assert {name: e.scheme for name, e in found.encodings.weights.items()} == dict.fromkeys(
        ["/conv1/Conv", "/layer1.0/conv1/Conv", "/fc/Gemm"], Scheme(narrow=True, axis=(-1,))
    )
    assert {"conv1.weight", "conv1.bias", "layer1.0.conv1.weight", "fc.weight", "fc.bias"} == {
        tensor.name for tensor in found.model.graph.initializer
    }
    assert (found.notes, found.encodings.float_ops, found.encodings.metadata) == ((), {}, {})
    np.testing.assert_array_equal(run(onnx_qdq.insert(found.model, found.encodings)), run(model))


def test_weights_of_the_clean_model_are_the_rounded_ones():
    found = onnx_qdq_read.read(resnet())
    given = {t.name: numpy_helper.to_array(t) for t in resnet().graph.initializer}["conv1.weight"]
    scale = np.abs(given).reshape(4, -1).max(axis=1).reshape(4, 1, 1, 1) / F(127)
    clean = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}["conv1.weight"]
    np.testing.assert_array_equal(clean, (np.clip(np.rint(given / scale), -128, 127) * scale).astype(F))


# Ways of writing, each of one convolution; what the model is, and which tensors have an encoding.


def conv(t: Torch, x: str, kernel: str | None = None, **attributes) -> str:
    return t.node("Conv", [x, kernel or t.kernel("conv", 4, 4, 3, 3, 3)], "conv", **attributes)


def asymmetric(t: Torch):
    return conv(t, t.fake("input.1", "quant", 0.03, U8(117))), {"input.1": (0.03, 117, False)}


def no_zero_point(t: Torch):
    scale = t.constant(F(0.02), "scale")
    q = t.node("QuantizeLinear", ["input.1", scale], "q")
    return conv(t, t.node("DequantizeLinear", [q, scale], "q")), {"input.1": (0.02, 0, False)}


def int8_initializer(t: Torch):
    # As torch.ao's convert and `int8_weights` store it: integers and a DequantizeLinear alone.
    numbers = t.numbers("w", F([0.01, 0.02, 0.03, 0.04]), np.zeros(4, I8))
    kernel = t.node(
        "DequantizeLinear", [t.weight("conv.weight_quantized", 4, 3, 3, 3, dtype=I8), *numbers], "w", axis=0
    )
    return conv(t, t.fake("input.1", "x"), kernel), {"input.1": (0.05, 0, True)}


def int32_bias(t: Torch):
    # ONNX Runtime's quantizer: bias int32 with scale s_x * s_w and no zero point.
    bias = t.weight("conv.bias_quantized", 4, dtype=np.int32)
    bias = t.node("DequantizeLinear", [bias, t.constant(F([5e-4] * 4), "bias/scale")], "bias", axis=0)
    x = t.fake("input.1", "x")
    return t.node("Conv", [x, t.kernel("conv", 4, 4, 3, 3, 3), bias], "conv"), {"input.1": (0.05, 0, True)}


def two_dequantizers(t: Torch):
    numbers = t.numbers("x", 0.04, I8(0))
    q = t.node("QuantizeLinear", ["input.1", *numbers], "q")
    one, two = (t.node("DequantizeLinear", [q, *numbers], name) for name in ("dq1", "dq2"))
    return t.node("Add", [conv(t, one, pads=[1] * 4), t.node("Conv", [two, t.weight("b", 4, 3, 1, 1)], "b")], "add"), {
        "input.1": (0.04, 0, True)
    }


def identity_and_transpose_between(t: Torch):
    numbers = t.numbers("x", 0.04, I8(3))
    q = t.node("Identity", [t.node("QuantizeLinear", ["input.1", *numbers], "q")], "between")
    q = t.node("Transpose", [q], "between", perm=[0, 1, 3, 2])
    return conv(t, t.node("DequantizeLinear", [q, *numbers], "dq")), {
        "input.1": (0.04, 3, True),
        "/between/Identity_output_0": (0.04, 3, True),
        "/between/Transpose_output_0": (0.04, 3, True),
    }


def max_pool_of_integers(t: Torch):
    numbers = t.numbers("x", 0.04, U8(128))
    q = t.node("QuantizeLinear", ["input.1", *numbers], "q")
    q = t.node("MaxPool", [q], "pool", kernel_shape=[2, 2])
    return conv(t, t.node("DequantizeLinear", [q, *numbers], "dq")), {
        "input.1": (0.04, 128, False),
        "/pool/MaxPool_output_0": (0.04, 128, False),
    }


def reduced_range(t: Torch):
    # torch.ao's default on x86: integers 0 to 127, which torch.onnx writes as a Clip of uint8.
    numbers = t.numbers("x", 0.05, U8(60))
    q = t.node("QuantizeLinear", ["input.1", *numbers], "q")
    q = t.node("Clip", [q, t.constant(U8(0), "low"), t.constant(U8(127), "high")], "clip")
    return conv(t, t.node("DequantizeLinear", [q, *numbers], "dq")), {"input.1": (0.05, 60, False)}


def cast_of_zero_points(t: Torch):
    # torch.fake_quantize_per_channel_affine: zero points are int32 and cast on the way; scales through an Identity.
    scale = t.node("Identity", [t.constant(F([0.01, 0.02, 0.03, 0.04]), "s")], "s")
    zero = t.node("Cast", [t.constant(np.zeros(4, np.int32), "z")], "z", to=TensorProto.INT8)
    q = t.node("QuantizeLinear", [t.weight("conv.weight", 4, 3, 3, 3), scale, zero], "w", axis=0)
    return conv(t, t.fake("input.1", "x"), t.node("DequantizeLinear", [q, scale, zero], "w", axis=0)), {
        "input.1": (0.05, 0, True)
    }


def axis_from_the_end(t: Torch):
    scale, zero = F([0.01, 0.02, 0.03, 0.04]), np.zeros(4, I8)
    return conv(t, t.fake("input.1", "x"), t.fake(t.weight("conv.weight", 4, 3, 3, 3), "w", scale, zero, axis=-4)), {
        "input.1": (0.05, 0, True)
    }


def asymmetric_kernel_per_tensor(t: Torch):
    kernel = t.fake(t.weight("conv.weight", 4, 3, 3, 3), "w", 0.03, U8(100))
    return conv(t, t.fake("input.1", "x"), kernel), {"input.1": (0.05, 0, True)}


def transposed_linear(t: Torch):
    # nn.Linear on more than two axes: the weight's pair, a Transpose, MatMul.
    w = t.node("Transpose", [t.kernel("fc", 6, 6, 8)], "fc", perm=[1, 0])
    return t.node("MatMul", [t.fake("input.1", "x"), w], "fc"), {"input.1": (0.05, 0, True)}


def transposed_convolution(t: Torch):
    scale, zero = F([0.01, 0.02, 0.03, 0.04]), np.zeros(4, I8)
    w = t.fake(t.weight("up.weight", 3, 4, 2, 2), "w", scale, zero, axis=1)
    return t.node("ConvTranspose", [t.fake("input.1", "x"), w], "up", strides=[2, 2]), {"input.1": (0.05, 0, True)}


def shared_weight(t: Torch):
    w = t.kernel("conv", 3, 3, 3, 3, 3)
    x = conv(t, t.fake("input.1", "x"), t.node("Identity", [w], "w1"), pads=[1] * 4)
    return t.node("Conv", [t.fake(x, "again", 0.5), w], "again", pads=[1] * 4), {
        "input.1": (0.05, 0, True),
        "/conv/Conv_output_0": (0.5, 0, True),
    }


def output_behind_a_pair(t: Torch):
    return t.fake(conv(t, t.fake("input.1", "x")), "out", 0.7), {
        "input.1": (0.05, 0, True),
        "/out/DequantizeLinear_output_0": (0.7, 0, True),
    }


def microsofts_domain(t: Torch):
    return conv(t, t.fake("input.1", "x", 0.02, U8(128), domain="com.microsoft")), {"input.1": (0.02, 128, False)}


def residual_without_a_pair(t: Torch):
    y = t.node("Relu", [t.node("Conv", ["input.1", t.weight("a", 3, 3, 1, 1)], "a")], "relu")
    z = t.node("Conv", [t.fake(y, "x"), t.kernel("conv", 3, 3, 3, 3, 3)], "conv", pads=[1] * 4)
    return t.node("Add", [z, y], "add"), {"/relu/Relu_output_0": (0.05, 0, True)}


WAYS = [
    asymmetric,
    no_zero_point,
    int8_initializer,
    int32_bias,
    two_dequantizers,
    identity_and_transpose_between,
    max_pool_of_integers,
    reduced_range,
    cast_of_zero_points,
    axis_from_the_end,
    asymmetric_kernel_per_tensor,
    transposed_linear,
    transposed_convolution,
    shared_weight,
    output_behind_a_pair,
    microsofts_domain,
    residual_without_a_pair,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_a_way_of_writing(way, opset):
    t = Torch()
    output, expected = way(t)
    model = t.model(output, opset)
    before = model.SerializeToString(deterministic=True)
    found = onnx_qdq_read.read(model)
    assert model.SerializeToString(deterministic=True) == before
    assert not onnx_qdq_read.has_pairs(found.model)
    onnx.checker.check_model(found.model, full_check=True)
    told = {
        name: (e.scale.item(), e.zero_point.item(), e.scheme.signed) for name, e in found.encodings.activations.items()
    }
    assert told == {name: (F(scale), point, signed) for name, (scale, point, signed) in expected.items()}
    assert set(found.encodings.float_ops) <= {"/a/Conv", "/b/Conv"}  # those without a pair
    again = onnx_qdq.insert(found.model, found.encodings, clip=True)
    np.testing.assert_array_equal(run(again), run(model))


def test_per_tensor_pairs_before_opset_13():
    t = Torch()
    t.node("Conv", [t.fake("input.1", "x"), t.fake(t.weight("w", 4, 3, 3, 3), "w", 0.02)], "conv")
    model = t.model("/conv/Conv_output_0", 10)
    found = onnx_qdq_read.read(model)
    assert found.encodings.weights["/conv/Conv"].scheme == Scheme(narrow=True)
    np.testing.assert_array_equal(run(onnx_qdq.insert(found.model, found.encodings)), run(model))


def test_fewer_integers_are_fewer_bits():
    t = Torch()
    output, _ = reduced_range(t)
    assert onnx_qdq_read.read(t.model(output)).encodings.activations["input.1"].scheme.bits == 7


def test_who_reads_a_tensor_without_its_pair_is_told_and_goes_on_so():
    t = Torch()
    output, _ = residual_without_a_pair(t)
    told = onnx_qdq_read.read(t.model(output)).encodings
    assert told.metadata == {UNQUANTIZED_READERS: {"/relu/Relu_output_0": ["/add/Add"]}}
    assert told.float_ops == {"/a/Conv": "its kernel has no Q/DQ"}


def test_an_output_that_is_also_read_behind_a_pair():
    t = Torch()
    y = t.node("Relu", ["input.1"], "relu")
    conv(t, t.fake(y, "x"))
    model = t.model(y)
    found = onnx_qdq_read.read(model)
    assert found.encodings.metadata == {UNQUANTIZED_READERS: {y: [OUTPUT]}}
    np.testing.assert_array_equal(run(onnx_qdq.insert(found.model, found.encodings)), run(model))


def test_what_has_no_place_is_noted():
    t = Torch()
    output, _ = int32_bias(t)
    scaled = t.node("Mul", [output, t.fake(t.weight("factor", 1), "factor", 0.02)], "mul")
    (bias, factor) = onnx_qdq_read.read(t.model(scaled)).notes
    assert "1 int32 biases are float32 now" in bias
    assert "factor" in factor
    assert "no scale" in factor


# What is refused.


def pair(t: Torch, q: list[str], dq: list[str], **attributes) -> str:
    integers = t.node("QuantizeLinear", ["input.1", *q], "q", **attributes)
    return conv(t, t.node("DequantizeLinear", [integers, *dq], "dq"))


def differing_scales(t: Torch):
    return pair(t, t.numbers("q", 0.05, I8(0)), t.numbers("dq", np.nextafter(F(0.05), F(1)), I8(0)))


def differing_zero_points(t: Torch):
    return pair(t, t.numbers("q", 0.05, I8(0)), t.numbers("dq", 0.05, I8(1)))


def differing_axes(t: Torch):
    w, scale, zero = t.weight("w", 4, 4, 1, 1), F([1, 2, 3, 4]), np.zeros(4, I8)
    numbers = t.numbers("w", scale, zero)
    q = t.node("QuantizeLinear", [w, *numbers], "q", axis=0)
    return conv(t, t.fake("input.1", "x"), t.node("DequantizeLinear", [q, *numbers], "dq", axis=1))


def differing_scales_of_channels(t: Torch):
    w, scale, zero = t.weight("w", 4, 4, 1, 1), F([1, 2, 3, 4]), np.zeros(4, I8)
    q = t.node("QuantizeLinear", [w, *t.numbers("w", scale, zero)], "q", axis=0)
    other = t.node("DequantizeLinear", [q, *t.numbers("w2", F([1, 2, 3.5, 5]), zero)], "dq", axis=0)
    return conv(t, t.fake("input.1", "x"), other)


def weights_that_are_no_numbers(t: Torch):
    w = t.constant(np.full((4, 4, 1, 1), np.nan, F), "w")
    return conv(t, t.fake("input.1", "x"), t.fake(w, "w", F([1, 2, 3, 4]), np.zeros(4, I8), axis=0))


def zero_point_behind_a_clip(t: Torch):
    numbers = t.numbers("q", 0.05, U8(128))
    q = t.node("QuantizeLinear", ["input.1", *numbers], "q")
    clipped = t.node("Clip", [q, t.constant(U8(0), "low"), t.constant(U8(127), "high")], "clip")
    return t.node("DequantizeLinear", [clipped, *numbers], "dq")


def computed_scale(t: Torch):
    top = t.node("ReduceMax", [t.node("Abs", ["input.1"], "abs")], "max", keepdims=0)
    numbers = [top, t.constant(I8(0), "zero")]
    return pair(t, numbers, numbers)


def scale_of(value):
    def build(t: Torch):
        return conv(t, t.fake("input.1", "x", value))

    return build


def half_scale(t: Torch):
    numbers = [t.constant(np.float16(0.5), "s"), t.constant(I8(0), "z")]
    return pair(t, numbers, numbers)


def lone_quantize(t: Torch):
    return t.node("QuantizeLinear", ["input.1", *t.numbers("q", 0.05, I8(0))], "q")


def lone_dequantize(t: Torch):
    return conv(t, t.node("DequantizeLinear", ["input.1", *t.numbers("q", 0.05, I8(0))], "dq"))


def channels_of_an_activation(t: Torch):
    return conv(t, t.fake("input.1", "x", F([0.1, 0.2, 0.3]), np.zeros(3, I8), axis=1))


def two_scales_for_one_tensor(t: Torch):
    a = conv(t, t.fake("input.1", "a", 0.05), pads=[1] * 4)
    return t.node("Add", [a, t.node("Conv", [t.fake("input.1", "b", 0.06), t.weight("b", 4, 3, 1, 1)], "b")], "add")


def on_integers(t: Torch):
    numbers = t.numbers("x", 0.05, I8(0))
    q = t.node("QuantizeLinear", ["input.1", *numbers], "q")
    return conv(t, t.node("DequantizeLinear", [t.node("Relu", [q], "relu"), *numbers], "dq"))


def operator_oriented(t: Torch):
    numbers = t.numbers("x", 0.05, U8(0))
    q = t.node("QuantizeLinear", ["input.1", *numbers], "q")
    w = t.weight("w", 4, 3, 3, 3, dtype=I8)
    out = t.node("QLinearConv", [q, *numbers, w, *t.numbers("w", 0.1, I8(0)), *t.numbers("y", 0.5, U8(0))], "conv")
    return t.node("DequantizeLinear", [out, *t.numbers("y2", 0.5, U8(0))], "dq")


def input_channels(t: Torch):
    return conv(
        t, t.fake("input.1", "x"), t.fake(t.weight("w", 4, 3, 3, 3), "w", F([1, 2, 3]), np.zeros(3, I8), axis=1)
    )


REFUSED = {
    "differing scales": (differing_scales, r"'/dq/DequantizeLinear' is not the inverse.*scale"),
    "differing zero points": (differing_zero_points, "not the inverse"),
    "differing scales of channels": (
        differing_scales_of_channels,
        r"not the inverse.*channel 2 of 4: scale 3\.5, zero point 0, but there scale 3\.0, zero point 0",
    ),
    "weights that are no numbers": (weights_that_are_no_numbers, "holds infinite values or NaN"),
    "a zero point behind a Clip": (zero_point_behind_a_clip, r"from 0 to 127, by a Clip: .*received 128"),
    "differing axes": (differing_axes, "not the inverse.*axis 1.*axis 0"),
    "computed scale": (computed_scale, "not constant but computed"),
    "scale 0": (scale_of(0.0), "finite, positive and normal"),
    "negative scale": (scale_of(-0.1), "finite, positive and normal"),
    "NaN": (scale_of(np.nan), "finite, positive and normal"),
    "infinite scale": (scale_of(np.inf), "finite, positive and normal"),
    "half precision": (half_scale, "float16"),
    "lone QuantizeLinear": (lone_quantize, "outputs .*integers"),
    "lone DequantizeLinear": (lone_dequantize, "comes from no QuantizeLinear"),
    "channels of an activation": (channels_of_an_activation, "'input.1' has 3 scales"),
    "two scales for one tensor": (two_scales_for_one_tensor, "'input.1' is quantized twice, differently"),
    "computes on integers": (on_integers, r"'/relu/Relu' \(Relu\) computes on the integers"),
    "operator-oriented": (operator_oriented, "QLinearConv"),
    "scales on input channels": (input_channels, "axis 1, expected axis 0"),
}


@pytest.mark.parametrize(("build", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(build, says):
    t = Torch()
    output = build(t)
    with pytest.raises(QdqReadError, match=says):
        onnx_qdq_read.read(t.model(output))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2])
def test_other_types_of_integers_are_refused(kind):
    t = Torch()
    t.constants.append(helper.make_tensor("zero", kind, [], [0]))
    numbers = [t.constant(F(0.05), "s"), "zero"]
    output = pair(t, numbers, numbers)
    with pytest.raises(QdqReadError, match="4, 8 or 16 bits"):
        onnx_qdq_read.read(t.model(output, 21))


def test_scales_for_blocks_are_refused():
    t = Torch()
    numbers = t.numbers("w", np.full((4, 1), 0.1, F), np.zeros((4, 1), I8))
    w = t.node("DequantizeLinear", [t.weight("w", 4, 8, dtype=I8), *numbers], "w", axis=1, block_size=8)
    output = t.node("Gemm", ["input.1", w], "fc", transB=1)
    with pytest.raises(QdqReadError, match="blocks"):
        onnx_qdq_read.read(t.model(output, 21))


# Files of another program: ONNX Runtime's quantizer.


def float_network() -> onnx.ModelProto:
    t = Torch()
    x = conv(t, "input.1", t.weight("conv.weight", 4, 3, 3, 3), pads=[1] * 4)
    t.nodes[-1].input.append(t.weight("conv.bias", 4))
    x = t.node("MaxPool", [t.node("Relu", [x], "relu")], "pool", kernel_shape=[2, 2], strides=[2, 2])
    y = t.node("Conv", [x, t.weight("next.weight", 4, 4, 1, 1), t.weight("next.bias", 4)], "next")
    y = t.node("Flatten", [t.node("GlobalAveragePool", [t.node("Add", [y, x], "add")], "mean")], "flat")
    return t.model(t.node("Gemm", [y, t.weight("fc.weight", 5, 4), t.weight("fc.bias", 5)], "fc", transB=1), rank=2)


SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
SETTINGS = {
    "default": {},
    "int8 per channel": {"activation_type": "QInt8", "weight_type": "QInt8", "per_channel": True},
    "for TensorRT": {
        "activation_type": "QInt8",
        "weight_type": "QInt8",
        "per_channel": True,
        "extra_options": {**SYMMETRIC, "AddQDQPairToWeight": True, "QuantizeBias": False, "DedicatedQDQPair": True},
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_file_of_onnxruntimes_quantizer(settings, tmp_path):
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"input.1": np.random.default_rng(i).normal(size=X).astype(F)} for i in range(3)])

        def get_next(self):
            return next(self.batches, None)

    types = {key: quantization.QuantType[value] if key.endswith("_type") else value for key, value in settings.items()}
    onnx.save(float_network(), tmp_path / "float.onnx")
    quantization.quantize_static(tmp_path / "float.onnx", tmp_path / "qdq.onnx", Reader(), **types)
    model = onnx.load(tmp_path / "qdq.onnx")
    found = onnx_qdq_read.read(model)
    onnx.checker.check_model(found.model, full_check=True)
    # It leaves out a ReLU where the integers begin at zero.
    assert set(kinds(found.model)) | {"Relu"} == set(kinds(float_network()))
    assert set(found.encodings.weights) == {"/conv/Conv", "/next/Conv", "/fc/Gemm"}
    assert {e.scheme.per_channel for e in found.encodings.weights.values()} == {settings.get("per_channel", False)}
    np.testing.assert_array_equal(run(onnx_qdq.insert(found.model, found.encodings)), run(model))
