"""What the weighted layers need a scale for, on graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.exporters.coverage import cover

KERNEL = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "kernel")


def model(text: str) -> onnx.ModelProto:
    """One node a line: ``output = Kind inputs``; ``y`` is the model's output."""
    rows = [line.replace("=", "").split() for line in text.splitlines()]
    nodes = [helper.make_node(kind, inputs, [output], output) for output, kind, *inputs in rows]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], [KERNEL]))


# Graph, tensors with a scale, and what is missing.
CASES = {
    "a block's end": ("a = Conv x kernel\ny = Relu a", "x y", ""),
    "the convolution itself": ("a = Conv x kernel\ny = MaxPool a", "x a", ""),
    "no scale of the input": ("a = Conv x kernel\ny = Relu a", "y", "x"),
    "no scale behind": ("a = Conv x kernel\ny = Relu a", "x", "y"),
    "silu": ("a = Conv x kernel\nb = Sigmoid a\ny = Mul a b", "x y", ""),
    "one way ends without": ("a = Conv x kernel\nb = Relu a\nc = Transpose a\ny = Mul b c", "x b", "a"),
    "an activation with a Transpose inside": (
        "a = Conv x kernel\nb = Relu a\nn = Neg a\nr = Relu n\nt = Transpose r\ny = Add b t",
        "x y",
        "r",
    ),
}


@pytest.mark.parametrize(("text", "scales", "missing"), CASES.values(), ids=CASES)
def test_what_is_missing(text, scales, missing):
    found = cover(model(text), scales.split())
    assert found.missing == tuple(missing.split())
    assert (found.int8, found.float_nodes) == (((), ("a",)) if missing else (("a",), ()))
