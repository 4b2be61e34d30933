"""Fuse: several nodes that the converter made of one Keras op, as the one ONNX node that says the same.

TensorRT takes each node for a layer whose output may need a scale; one node has one output.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper, numpy_helper

Constants = dict[str, onnx.TensorProto]


def fuse_dense(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """MatMul and the Add of a bias as Gemm; only for a Dense on vectors, since Gemm takes matrices."""
    products = {n.output[0]: n for n in nodes if n.op_type == "MatMul" and n.input[1] in constants}
    for add in [n for n in nodes if n.op_type == "Add"]:
        product, bias = products.get(add.input[0]), constants.get(add.input[1])
        if product is None or bias is None:
            continue
        width = constants[product.input[1]].dims[-1]
        if list(bias.dims) in ([width], [1, width]):
            inputs = [product.input[0], product.input[1], add.input[1]]
            gemm = helper.make_node("Gemm", inputs, list(add.output), name=add.name)
            nodes = [gemm if n is add else n for n in nodes if n is not product]
    return list(nodes)


def fuse_prelu(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """``relu(x) + c * relu(-x)``, as Keras spells PReLU, as PRelu with the slope ``-c`` (added to ``constants``)."""
    by_output = {n.output[0]: n for n in nodes}
    for add in [n for n in nodes if n.op_type == "Add"]:
        positive, product = (by_output.get(name) for name in add.input)
        if positive is not None and positive.op_type == "Mul":
            positive, product = product, positive
        factor = next((name for name in product.input if name in constants), None) if product is not None else None
        negative = next((by_output[n] for n in product.input if n in by_output), None) if product is not None else None
        flipped = by_output.get(negative.input[0]) if negative is not None else None
        parts = (positive, negative, flipped, product)
        if factor is None or [p and p.op_type for p in parts] != ["Relu", "Relu", "Neg", "Mul"]:
            continue
        if flipped.input[0] == positive.input[0]:
            slope = f"{add.output[0]}/slope"
            constants[slope] = numpy_helper.from_array(-numpy_helper.to_array(constants[factor]), slope)
            prelu = helper.make_node("PRelu", [positive.input[0], slope], list(add.output), name=add.name)
            nodes = [prelu if n is add else n for n in nodes if not any(n is part for part in parts)]
    return list(nodes)
