"""Tidying keeps what a model computes and what it is called."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tfqat.exporters.onnx_qdq import weights_of
from tfqat.exporters.onnx_tidy import tidy

RNG = np.random.default_rng(0)


def untidy() -> onnx.ModelProto:
    """A kernel in a Constant node, turned by a Transpose; copies of a constant; nodes without names; an old input."""
    kernel = numpy_helper.from_array(RNG.normal(size=(5, 4)).astype("float32"))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=kernel),
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("Transpose", ["w2"], ["w3"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w3"], ["a"]),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Identity", ["bias"], ["bias2"]),
        helper.make_node("Add", ["a", "bias2"], ["b"], "a"),
        helper.make_node("Mul", ["b", "two"], ["y"], "last"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
        helper.make_tensor_value_info("bias", TensorProto.FLOAT, [5]),  # as before ONNX 1.4
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])]
    bias = numpy_helper.from_array(RNG.normal(size=5).astype("float32"), "bias")
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [bias]), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 7
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": np.random.default_rng(1).normal(size=(2, 4)).astype("float32")})[0]


def test_tidy():
    model = untidy()
    found = tidy(model)
    onnx.checker.check_model(found, full_check=True)
    assert [node.op_type for node in found.graph.node] == ["MatMul", "Add", "Mul"]
    assert [node.name for node in found.graph.node] == ["a", "a_1", "last"]
    assert [info.name for info in found.graph.input] == ["x"]
    assert list(weights_of(found)) == ["a"]
    assert weights_of(model) == {}
    np.testing.assert_array_equal(run(found), run(model))


def test_what_is_tidy_stays_as_it_is():
    found = tidy(untidy())
    assert tidy(found).SerializeToString(deterministic=True) == found.SerializeToString(deterministic=True)


def test_an_output_that_copies_a_constant():
    model = untidy()
    model.graph.output.append(helper.make_tensor_value_info("bias2", TensorProto.FLOAT, [5]))
    found = tidy(model)
    assert [info.name for info in found.graph.output] == ["y", "bias2"]
    onnx.checker.check_model(found, full_check=True)


def test_graphs_inside_nodes_read_the_constants_too():
    inner = helper.make_graph(
        [helper.make_node("Mul", ["x", "c2"], ["m"])], "then", [], [helper.make_tensor_value_info("m", 1, [2])]
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[2.0, 3.0]),
        helper.make_node("Identity", ["c"], ["c2"]),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.bool_(True))),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos[:1], infos[1:]), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 7
    found = tidy(model)
    session = onnxruntime.InferenceSession(found.SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": np.float32([1, 1])})[0], [2, 3])
