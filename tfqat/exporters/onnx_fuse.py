"""Fuse: several nodes that the converter made of one Keras op, as the one ONNX node that says the same.

TensorRT takes each node for a layer whose output may need a scale; one node has one output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    by_output = {node.output[0]: node for node in nodes}
    for add in [node for node in nodes if node.op_type == "Add"]:
        parts = _parts_of_prelu(add, by_output)
        factor = next((name for name in parts[1].input if name in constants), None) if parts else None
        if factor is None:
            continue
        slope = f"{add.output[0]}/slope"
        constants[slope] = numpy_helper.from_array(-numpy_helper.to_array(constants[factor]), slope)
        prelu = helper.make_node("PRelu", [parts[0].input[0], slope], list(add.output), name=add.name)
        nodes = [prelu if node is add else node for node in nodes if not any(node is part for part in parts)]
    return list(nodes)


def _parts_of_prelu(add: onnx.NodeProto, by_output: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The Relu, Mul, Relu and Neg that ``add`` ends, or nothing where it ends something else."""
    ends = {by_output[name].op_type: by_output[name] for name in add.input if name in by_output}
    if set(ends) != {"Relu", "Mul"}:
        return []
    behind = [by_output[name] for name in ends["Mul"].input if name in by_output]
    below = [by_output[name] for node in behind for name in node.input if name in by_output]
    known = [node.op_type for node in [*behind, *below]] == ["Relu", "Neg"]
    same = known and below[0].input[0] == ends["Relu"].input[0]
    return [ends["Relu"], ends["Mul"], *behind, *below] if same else []
