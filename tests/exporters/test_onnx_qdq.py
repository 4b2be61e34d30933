"""Q/DQ pairs: where they stand, and what they compute, on graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.core.encoding import Encoding, Encodings, encoding_of_range, encoding_of_values
from tfqat.core.scheme import Scheme
from tfqat.exporters import onnx_qdq, requantization
from tfqat.exporters.onnx_qdq import QdqError
from tfqat.exporters.requantization import RequantizationError

INT8 = Scheme()
RNG = np.random.default_rng(0)

# Node type -> input shape, kernel shape in ONNX, attributes, the kernel's channel axis.
WEIGHTED = {
    "Conv": ((1, 3, 5, 5), (4, 3, 3, 3), {}, 0),
    "depthwise Conv": ((1, 3, 5, 5), (6, 1, 3, 3), {"group": 3}, 0),
    "ConvTranspose": ((1, 3, 5, 5), (3, 4, 2, 2), {}, 1),
    "MatMul": ((2, 3), (3, 4), {}, 1),
    "Gemm": ((2, 3), (3, 4), {}, 1),
    "Gemm transB": ((2, 3), (4, 3), {"transB": 1}, 0),
}


def kernel_of(shape: tuple[int, ...], axis: int) -> tuple[np.ndarray, Encoding]:
    """A kernel on its grid, its integers reaching 127 in each channel, and its Encoding."""
    values = RNG.normal(size=shape).astype("float32")
    values *= np.expand_dims(np.arange(1, shape[axis] + 1), [i for i in range(len(shape)) if i != axis]).astype(
        "float32"
    )
    scheme = Scheme(narrow=True, axis=(axis - len(shape),))
    encoding = encoding_of_values(scheme, values)
    return encoding.fake_quantize(values), encoding


def layer(kind: str):
    shape, kernel_shape, attributes, axis = WEIGHTED[kind]
    kernel, encoding = kernel_of(kernel_shape, axis)
    node = helper.make_node(kind.split()[-1 if "depthwise" in kind else 0], ["x", "w/kernel"], ["w"], "w", **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [None] * len(shape))]
    constants = [numpy_helper.from_array(kernel, "w/kernel")]
    graph = helper.make_graph([node], "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model, kernel, encoding, shape


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize("int8_weights", [False, True], ids=["float kernels", "int8 kernels"])
@pytest.mark.parametrize("kind", WEIGHTED)
def test_kernels_per_channel(kind, int8_weights):
    model, _, encoding, shape = layer(kind)
    qdq = onnx_qdq.insert(model, Encodings("t", {}, {"w": encoding}), int8_weights)
    onnx.checker.check_model(qdq, full_check=True)
    axes = {n.op_type: n.attribute[0].i for n in qdq.graph.node if n.op_type.endswith("Linear")}
    axis = WEIGHTED[kind][3]
    expected = {"DequantizeLinear": axis} if int8_weights else {"QuantizeLinear": axis, "DequantizeLinear": axis}
    assert axes == expected
    stored = {t.name: t.data_type for t in qdq.graph.initializer}
    assert stored.get("w/kernel/quantize" if int8_weights else "w/kernel") == (
        TensorProto.INT8 if int8_weights else TensorProto.FLOAT
    )
    x = RNG.normal(size=shape).astype("float32")
    # The kernel is on its grid already, so nothing may change.
    np.testing.assert_array_equal(run(qdq, x), run(model, x))


@pytest.mark.parametrize(
    ("scheme", "low", "high"),
    [(INT8, -1, 1), (Scheme(symmetric=False), -1, 2), (Scheme(signed=False, symmetric=False), -0.5, 2)],
    ids=["symmetric int8", "asymmetric int8", "asymmetric uint8"],
)
def test_an_activation_is_rounded_as_its_encoding_says(scheme, low, high):
    model, _, _, shape = layer("MatMul")
    encoding = encoding_of_range(scheme, low, high)
    qdq = onnx_qdq.insert(model, Encodings("t", {"x": encoding}, {}))
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(qdq, x), run(model, encoding.fake_quantize(x)), rtol=1e-6)
    assert [n.name for n in qdq.graph.node] == ["x/quantize", "x/dequantize", "w"]
    assert onnx_qdq.scales_of(qdq) == {"x": float(encoding.scale)}


def test_an_encoded_output_keeps_its_name():
    model, _, _, shape = layer("MatMul")
    encoding = encoding_of_range(INT8, -1, 1)
    qdq = onnx_qdq.insert(model, Encodings("t", {"w": encoding}, {}))
    x = RNG.normal(size=shape).astype("float32")
    assert [info.name for info in qdq.graph.output] == ["w"]
    np.testing.assert_allclose(run(qdq, x), encoding.fake_quantize(run(model, x)), rtol=1e-6)


def test_a_calibrated_tensor_gets_no_pair():
    model, *_ = layer("MatMul")
    encoding = encoding_of_range(INT8, -1, 1, "calibrated")
    assert [n.name for n in onnx_qdq.insert(model, Encodings("t", {"x": encoding}, {})).graph.node] == ["w"]


def test_the_given_model_is_untouched():
    model, _, encoding, _ = layer("Conv")
    before = model.SerializeToString(deterministic=True)
    onnx_qdq.insert(model, Encodings("t", {"x": encoding_of_range(INT8, -1, 1)}, {"w": encoding}))
    assert model.SerializeToString(deterministic=True) == before


def scaled(encoding: Encoding, factor: float) -> Encoding:
    return Encoding(encoding.scheme, encoding.scale * np.float32(factor), encoding.zero_point)


REFUSED = {
    "another kernel": (lambda e: ({}, {"w": scaled(e, 1.1)}), "off its own grid"),
    "another count of channels": (
        lambda e: ({}, {"w": Encoding(e.scheme, e.scale[:2], e.zero_point[:2])}),
        "expected 4 scales",
    ),
    "an unknown tensor": (lambda e: ({"nowhere": encoding_of_range(INT8, -1, 1)}, {}), "nowhere"),
    "an unknown kernel": (lambda e: ({}, {"nowhere": e}), "nowhere"),
    "16 bits": (lambda e: ({"x": encoding_of_range(Scheme(bits=16), -1, 1)}, {}), "8 bits"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_encodings_that_do_not_fit_are_refused(make, says):
    model, _, encoding, _ = layer("Conv")
    with pytest.raises(QdqError, match=says):
        onnx_qdq.insert(model, Encodings("t", *make(encoding)))


# What a cache's reader makes of the float kernels.


@pytest.mark.parametrize("kind", WEIGHTED)
def test_a_kernel_that_reaches_127_is_requantized_to_itself(kind):
    model, kernel, encoding, _ = layer(kind)
    axis = WEIGHTED[kind][3]
    np.testing.assert_allclose(requantization.implicit_scale(kernel, axis), encoding.scale, rtol=2e-7)
    np.testing.assert_allclose(requantization.requantized(kernel, axis), kernel, rtol=1e-6, atol=1e-7)
    assert requantization.errors(model, Encodings("t", {}, {"w": encoding})) == {}


def test_a_kernel_that_does_not_is_refused_by_name():
    model, kernel, encoding, _ = layer("Conv")
    kernel = np.clip(kernel, *(sign * 100 * encoding.scale.reshape(-1, 1, 1, 1) for sign in (-1, 1)))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "w/kernel"))
    with pytest.raises(RequantizationError, match=r"w \(0\.\d"):
        requantization.errors(model, Encodings("t", {}, {"w": encoding}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_kernel_that_holds_no_numbers_is_refused(value):
    model, kernel, encoding, _ = layer("Conv")
    kernel = kernel.copy()
    kernel[2, 0, 0, 0] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "w/kernel"))
    with pytest.raises(QdqError, match=r"w/kernel.*NaN"):
        onnx_qdq.insert(model, Encodings("t", {}, {"w": encoding}))
    with pytest.raises(QdqError, match=r"w/kernel.*NaN"):
        onnx_qdq.rounded(onnx_qdq.weights_of(model)["w"], kernel, encoding)
    with pytest.raises(RequantizationError, match="NaN in output channels 2"):
        requantization.implicit_scale(kernel, 0)


def test_a_kernel_below_what_a_scale_can_hold_becomes_zero():
    kernel = np.full((2, 1, 1, 1), 1e-38, np.float32)
    assert (requantization.implicit_scale(kernel, 0) >= np.finfo(np.float32).tiny).all()
    assert not requantization.requantized(kernel, 0).any()


def test_a_dead_kernel_does_not_move():
    kernel = np.zeros((4, 3, 3, 3), np.float32)
    assert not requantization.requantized(kernel, 0).any()
    assert np.isfinite(requantization.implicit_scale(kernel, 0)).all()


# Kernels and activations with zero points.

KERNEL_SCHEMES = {
    "asymmetric uint8 per tensor": Scheme(signed=False, symmetric=False),
    "asymmetric int8 per tensor": Scheme(symmetric=False),
    "symmetric int8 per tensor": Scheme(narrow=True),
    "asymmetric uint8 per channel": Scheme(signed=False, symmetric=False, axis=(-1,)),
}


@pytest.mark.parametrize("int8_weights", [False, True], ids=["float kernels", "int8 kernels"])
@pytest.mark.parametrize("scheme", KERNEL_SCHEMES.values(), ids=KERNEL_SCHEMES)
@pytest.mark.parametrize("kind", ["Conv", "Gemm transB"])  # both have their channels first
def test_kernels_with_zero_points(kind, scheme, int8_weights):
    model, _, _, shape = layer(kind)
    values = RNG.normal(size=WEIGHTED[kind][1]).astype("float32") + 0.3
    axis = (-values.ndim,) if scheme.per_channel else ()
    onnx_layout = Scheme(**{**vars(scheme), "axis": axis})
    encoding = encoding_of_values(onnx_layout, values)
    kernel = encoding.fake_quantize(values)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "w/kernel"))
    qdq = onnx_qdq.insert(model, Encodings("t", {}, {"w": encoding}), int8_weights)
    onnx.checker.check_model(qdq, full_check=True)
    stored = {t.name: t.data_type for t in qdq.graph.initializer}
    expected = TensorProto.INT8 if scheme.signed else TensorProto.UINT8
    assert stored["w/kernel/zero_point"] == expected
    assert stored.get("w/kernel/quantize", expected) == expected
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(qdq, x), run(model, x), rtol=1e-5, atol=1e-5)


def test_fewer_bits_of_an_activation_take_a_clip():
    model, _, _, shape = layer("MatMul")
    encoding = encoding_of_range(Scheme(bits=5, signed=False, symmetric=False), -0.5, 2)
    told = Encodings("t", {"x": encoding}, {})
    with pytest.raises(QdqError, match="8 bits"):
        onnx_qdq.insert(model, told)
    qdq = onnx_qdq.insert(model, told, clip=True)
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(qdq, x), run(model, encoding.fake_quantize(x)), rtol=1e-6)


def test_names_that_are_taken():
    model, _, encoding, shape = layer("MatMul")
    model.graph.node.append(helper.make_node("Relu", ["w"], ["x/dequantize"], "x/quantize"))
    qdq = onnx_qdq.insert(model, Encodings("t", {"x": encoding_of_range(INT8, -1, 1)}, {"w": encoding}))
    onnx.checker.check_model(qdq, full_check=True)
    assert onnx_qdq.scales_of(qdq).keys() == {"x"}
    assert run(qdq, np.ones(shape, np.float32)).shape == (2, 4)
