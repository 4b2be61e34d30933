"""Which tensors lie inside TensorRT's kernels, on graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.exporters import onnx_blocks

CONSTANTS = {
    "kernel": np.ones((4, 4, 1, 1), np.float32),
    "matrix": np.ones((4, 4), np.float32),
    "vector": np.ones(4, np.float32),
    "number": np.float32(3),
}


def model(text: str, outputs: str = "y") -> onnx.ModelProto:
    """One node a line: ``output = Kind inputs``."""
    nodes = []
    for line in text.strip().splitlines():
        output, kind, *inputs = line.replace("=", "").split()
        nodes.append(helper.make_node(kind, inputs, [output], output))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *outputs.split())]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()]
    return helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], constants))


def inside(text: str, outputs: str = "y", without: str = "") -> set[str]:
    given = model(text, outputs)
    tensors = {name for node in given.graph.node for name in node.output} | {"x"}
    return onnx_blocks.inside(given, tensors - set(without.split()))


KERNELS = {
    "scores of an attention": ("a = MatMul x x\nb = Mul a number\nc = Where m b number\ny = Softmax c", "a b c"),
    "scores with a bias": ("a = MatMul x x\nb = Add a x\ny = Softmax b", "a b"),
    "scores that ask for their shape": ("a = MatMul x x\ns = Shape a\nb = Add a s\ny = Softmax b", "a b"),
    "softmax and what its mask leaves": ("a = MatMul x x\nb = Softmax a\ny = Where m b number", "a"),
    "a product without softmax": ("a = MatMul x x\ny = Mul a number", ""),
    "scores that another reads": ("a = MatMul x x\nb = Softmax a\ny = Add b a", ""),
    "convolution and activation": ("a = Conv x kernel\ny = Relu a", "a"),
    "batch normalization": (
        "a = Conv x kernel\nb = BatchNormalization a vector vector vector vector\ny = LeakyRelu b",
        "a b",
    ),
    "bias behind a product": ("a = MatMul x matrix\nb = Add a vector\ny = Relu b", "a b"),
    "silu": ("a = Conv x kernel\nb = Sigmoid a\ny = Mul a b", "a b"),
    "hard swish": (
        "a = Conv x kernel\nb = Add a number\nc = Clip b number number\nd = Div c number\ny = Mul a d",
        "a b c d",
    ),
    "hard sigmoid": ("a = Conv x kernel\nb = Add a number\nc = Clip b number number\ny = Mul c number", "a b c"),
    "gelu": (
        "a = Gemm x matrix\nb = Div a number\nc = Erf b\nd = Add c number\ne = Mul a d\ny = Mul e number",
        "a b c d e",
    ),
    "silu and a scale behind": ("a = Conv x kernel\nb = Sigmoid a\nc = Mul a b\ny = Mul c number", "a b"),
    "mish": ("a = Conv x kernel\nb = Softplus a\nc = Tanh b\ny = Mul a c", "a b c"),
    "residual": ("a = Relu x\nb = Conv a kernel\nc = Add b a\ny = Relu c", "b c"),
    "a scale behind a residual": ("a = Relu x\nb = Conv a kernel\nc = Add b a\nd = Mul c vector\ny = Relu d", "b d"),
    "the later of two branches": ("a = Conv x kernel\nr = Relu x\nb = Conv r kernel\nc = Add a b\ny = Relu c", "b c"),
    "addition and activation": ("a = Relu x\nb = Tanh x\nc = Add a b\ny = Relu c", "c"),
    "read by two": ("a = Conv x kernel\nb = Relu a\nc = Conv a kernel\ny = Concat b c", ""),
    "pool behind": ("a = Conv x kernel\ny = MaxPool a", ""),
    "nothing behind": ("y = Conv x kernel", ""),
    "an Add behind a Dense": ("a = Gemm x matrix\nb = Relu x\ny = Add a b", ""),
}


@pytest.mark.parametrize(("text", "expected"), KERNELS.values(), ids=KERNELS)
def test_tensors_inside(text, expected):
    assert inside(text) == set(expected.split())


def test_a_model_output_ends_a_kernel():
    assert inside("a = Conv x kernel\ny = Relu a", outputs="y a") == set()


def test_a_kernel_ends_at_its_last_scale():
    text = "a = Conv x kernel\nb = Relu a\ny = Gemm b matrix"
    assert inside(text, without="b") == set()  # the line of the convolution is the one that it has


def test_the_branch_without_a_scale_takes_the_add_in():
    text = "a = Conv x kernel\nr = Relu x\nb = Conv r kernel\nc = Add a b\ny = Relu c"
    assert inside(text, without="a") == {"a", "c"}


def test_activations_of_several_nodes_without_scales_inside():
    given = model("a = Conv x kernel\nb = Sigmoid a\nc = Mul a b\nd = Conv c kernel\ny = Relu d")
    assert onnx_blocks.spelled_out(given, {"x", "c", "y"}) == ["a"]
    assert onnx_blocks.spelled_out(given, {"x", "a", "b", "c", "y"}) == []
