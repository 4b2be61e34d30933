"""Ranges carried onto tensors that the converter made, on graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.core.encoding import Encodings, encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.exporters import carry
from tfqat.exporters.onnx_names import Named

INT8 = Scheme()
AXES = numpy_helper.from_array(np.array([2, 3]), "axes")
SHAPE = numpy_helper.from_array(np.array([-1, 4]), "shape")
PADS = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")
ZERO = numpy_helper.from_array(np.float32(0), "zero")
ONE = numpy_helper.from_array(np.float32(1), "one")
SCALES = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
KERNEL = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "kernel")


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph(list(nodes), "g", [value], [last], [AXES, SHAPE, PADS, ZERO, ONE, SCALES, KERNEL])
    )


def node(kind: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def carried(given: onnx.ModelProto, keras_tensors: str, **ranges: tuple[float, float]) -> dict[str, tuple[float, str]]:
    """Tensor -> scale and origin, after carrying ``ranges`` (Keras tensor -> low, high)."""
    named = Named(given, {name: name for name in keras_tensors.split()}, {})
    activations = {name: encoding_of_range(INT8, *bounds) for name, bounds in ranges.items()}
    found = carry.to_onnx(named, Encodings("tensorrt", activations, {})).activations
    return {name: (float(e.scale), e.origin) for name, e in found.items()}


SHARING = {
    "Transpose": node("Transpose", "x", "y", perm=[0, 3, 1, 2]),
    "Reshape": node("Reshape", "x shape", "y"),
    "Squeeze": node("Squeeze", "x axes", "y"),
    "MaxPool": node("MaxPool", "x", "y", kernel_shape=[2, 2]),
    "Pad with zero": node("Pad", "x pads zero", "y"),
    "Pad by reflection": node("Pad", "x pads one", "y", mode="reflect"),
    "nearest Resize": node("Resize", "x  scales".replace("  ", " zero "), "y", mode="nearest"),
}
NOT_SHARING = {
    "Relu": node("Relu", "x", "y"),
    "AveragePool": node("AveragePool", "x", "y", kernel_shape=[2, 2]),
    "Conv": node("Conv", "x kernel", "y"),
    "Pad with one": node("Pad", "x pads one", "y"),
    "linear Resize": node("Resize", "x zero scales", "y", mode="linear"),
}


@pytest.mark.parametrize("one", SHARING.values(), ids=SHARING)
def test_a_node_that_keeps_values_keeps_the_range(one):
    assert carried(model(one), "x", x=(-1, 1))["y"] == (pytest.approx(1 / 127), "shared")


@pytest.mark.parametrize("one", NOT_SHARING.values(), ids=NOT_SHARING)
def test_a_node_that_computes_does_not(one):
    assert list(carried(model(one), "x", x=(-1, 1))) == ["x"]


def test_a_keras_tensor_left_float_stays_so():
    assert list(carried(model(node("Reshape", "x shape", "y")), "x y", x=(-1, 1))) == ["x"]


def test_a_tensor_inside_one_op_takes_the_range_behind_it():
    pool = node("GlobalAveragePool", "x", "pool")
    found = carried(model(pool, node("Squeeze", "pool axes", "y")), "x y", x=(-1, 1), y=(-0.5, 0.5))
    assert found["pool"] == (pytest.approx(0.5 / 127), "shared")
    assert list(found) == ["x", "pool", "y"]


def test_the_inner_tensor_of_silu_is_computed():
    silu = (node("Sigmoid", "x", "inner"), node("Mul", "x inner", "y"))
    found = carried(model(*silu), "x y", x=(-8, 8), y=(-0.3, 8))
    # The range of a symmetric int8 tensor reaches down to -128 steps; sigmoid(8) is its highest.
    assert found["inner"] == (pytest.approx(1 / (1 + np.exp(-8)) / 127, rel=1e-6), "calibrated")


def test_the_inner_tensors_of_hard_sigmoid_are_computed():
    three = numpy_helper.from_array(np.float32(3), "three")
    six = numpy_helper.from_array(np.float32(6), "six")
    sixth = numpy_helper.from_array(np.float32(1 / 6), "sixth")
    given = model(node("Add", "x three", "sum"), node("Clip", "sum zero six", "clip"), node("Mul", "clip sixth", "y"))
    given.graph.initializer.extend([three, six, sixth])
    found = carried(given, "x y", x=(-4, 4), y=(0, 1))
    assert found["sum"][0] == pytest.approx(7 / 127, rel=1e-6)
    assert found["clip"][0] == pytest.approx(6 / 127, rel=1e-6)


def test_a_float_tail_gets_no_range():
    tail = (node("Sigmoid", "x", "y"), node("Mul", "x y", "z"))
    assert list(carried(model(*tail), "x z", x=(-1, 1))) == ["x"]


def test_two_inputs_are_not_an_activation():
    add = (node("Relu", "x", "a"), node("Conv", "x kernel", "b"), node("Add", "a b", "y"))
    assert set(carried(model(*add), "x y", x=(-1, 1), y=(-1, 1))) == {"x", "y"}


def test_an_inner_range_leaves_out_what_a_function_does_not_take():
    graph = model(helper.make_node("Sqrt", ["x"], ["root"]), helper.make_node("Neg", ["root"], ["y"]))
    known = {"x": encoding_of_range(INT8, -4, 4), "y": encoding_of_range(INT8, -2, 2)}
    ((name, found),) = carry.inner_ranges(graph, known).items()
    assert name == "root"
    assert float(found.max) == pytest.approx(2.0, rel=0.01)


# Within an ONNX from anywhere.


def spread(given: onnx.ModelProto, **ranges: tuple[float, float]) -> dict[str, float]:
    activations = {name: encoding_of_range(INT8, *bounds) for name, bounds in ranges.items()}
    found = carry.spread(given, activations)
    assert {name for name, e in found.items() if e.origin != "shared"} == set(ranges)
    return {name: round(float(e.max), 6) for name, e in found.items()}


@pytest.mark.parametrize("one", SHARING.values(), ids=SHARING)
def test_a_range_spreads_forward_and_backward(one):
    conv, add = node("Conv", "x kernel", "a"), node("Add", "b b", "y")
    middle = onnx.NodeProto()
    middle.CopyFrom(one)
    middle.input[0], middle.output[0] = "a", "b"
    assert spread(model(conv, middle, add), a=(-1, 1)) == {"a": 1, "b": 1}
    assert spread(model(conv, middle, add), b=(-1, 1)) == {"a": 1, "b": 1}


@pytest.mark.parametrize("one", NOT_SHARING.values(), ids=NOT_SHARING)
def test_a_range_does_not_spread_through_what_computes(one):
    assert spread(model(one), x=(-1, 1)) == {"x": 1}
    assert spread(model(one), y=(-1, 1)) == {"y": 1}


FORKED = (node("Conv", "x kernel", "a"), node("Flatten", "a", "b"), node("Transpose", "a", "c"))


def test_backward_all_readers_agree():
    assert spread(model(*FORKED), b=(-1, 1), c=(-1, 1)) == {"a": 1, "b": 1, "c": 1}
    assert spread(model(*FORKED), b=(-1, 1), c=(-2, 2)) == {"b": 1, "c": 2}
    assert spread(model(*FORKED), b=(-1, 1)) == {"b": 1}  # who reads c is not asked to round
    assert spread(model(*FORKED, node("Relu", "a", "y")), b=(-1, 1), c=(-1, 1)) == {"b": 1, "c": 1}


def test_backward_a_reader_that_computes_keeps_the_tensor_float():
    forked = (*FORKED[:2], node("Relu", "a", "y"))
    assert spread(model(*forked), b=(-1, 1), y=(-1, 1)) == {"b": 1, "y": 1}


def test_a_concat_shares_where_its_inputs_agree():
    concat = (node("Relu", "x", "a"), node("Tanh", "x", "b"), node("Concat", "a b", "y", axis=1))
    assert spread(model(*concat), a=(-1, 1), b=(-1, 1)) == {"a": 1, "b": 1, "y": 1}
    assert spread(model(*concat), a=(-1, 1), b=(-2, 2)) == {"a": 1, "b": 2}
    assert spread(model(*concat), y=(-3, 3)) == {"a": 3, "b": 3, "y": 3}


def test_a_models_output_gets_no_range_from_behind():
    given = model(node("Relu", "x", "a"), node("Flatten", "a", "y"))
    given.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    assert spread(given, y=(-1, 1)) == {"y": 1}
