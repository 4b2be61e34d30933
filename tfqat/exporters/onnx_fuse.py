"""Fuse: several nodes that the converter made of one Keras op, as the one ONNX node that says the same.

TensorRT takes each node for a layer whose output may need a scale; one node has one output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

Constants = dict[str, np.ndarray]


def fuse_dense(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """MatMul and the Add of a bias as Gemm; only for a Dense on vectors, since Gemm takes matrices."""
    products = {n.output[0]: n for n in nodes if n.op_type == "MatMul" and n.input[1] in constants}
    for add in [n for n in nodes if n.op_type == "Add"]:
        product, bias = products.get(add.input[0]), constants.get(add.input[1])
        if product is None or bias is None:
            continue
        width = constants[product.input[1]].shape[-1]
        if bias.shape in ((width,), (1, width)):
            inputs = [product.input[0], product.input[1], add.input[1]]
            gemm = helper.make_node("Gemm", inputs, list(add.output), name=add.name)
            nodes = [gemm if n is add else n for n in nodes if n is not product]
    return list(nodes)


def fuse_prelu(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """``relu(x) + c * relu(-x)``, as Keras spells PReLU, as PRelu with the slope ``-c`` (added to ``constants``).

    A slope for each element of an image is multiplied in Keras' layout, between two Transposes; it is put into ONNX'.
    """
    by_output = {node.output[0]: node for node in nodes}
    for add in [node for node in nodes if node.op_type == "Add"]:
        parts = _parts_of_prelu(add, by_output, constants)
        if parts is None:
            continue
        slope = f"{add.output[0]}/slope"
        constants[slope] = parts.slope
        prelu = helper.make_node("PRelu", [parts.source, slope], list(add.output), name=add.name)
        nodes = [prelu if node is add else node for node in nodes if not any(node is part for part in parts.nodes)]
    return list(nodes)


@dataclass(frozen=True)
class _Prelu:
    """What one PReLU is made of: its input, its slope in the input's layout, and the nodes before the Add."""

    source: str
    slope: np.ndarray
    nodes: tuple[onnx.NodeProto, ...]


def _parts_of_prelu(
    add: onnx.NodeProto, by_output: Mapping[str, onnx.NodeProto], constants: Constants
) -> _Prelu | None:
    """The parts of the PReLU that ``add`` ends; None where it ends something else."""
    for one, other in (list(add.input), list(add.input)[::-1]):
        positive, chain = by_output.get(one), _chain(other, by_output, constants)
        kinds = [node.op_type for node in chain]
        if positive is None or positive.op_type != "Relu" or kinds not in (_PLAIN, _TRANSPOSED):
            continue
        if chain[-1].input[0] != positive.input[0]:
            continue
        factor = _factor(chain[kinds.index("Mul")], constants)
        perms = [_perm(node) for node in chain if node.op_type == "Transpose"]
        if perms and (len(perms[0]) < factor.ndim or [perms[1][axis] for axis in perms[0]] != sorted(perms[0])):
            continue
        if perms:
            factor = factor.reshape([1] * (len(perms[0]) - factor.ndim) + list(factor.shape)).transpose(perms[0])
            factor = factor[0] if factor.shape[0] == 1 else factor
        return _Prelu(positive.input[0], np.ascontiguousarray(-factor), (positive, *chain))
    return None


# From the Add back to the input.
_PLAIN = ["Mul", "Relu", "Neg"]
_TRANSPOSED = ["Transpose", "Mul", "Transpose", "Relu", "Neg"]


def _chain(tensor: str, by_output: Mapping[str, onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """The nodes behind each other that lead to ``tensor``, the last one first, as far as each reads one tensor."""
    chain: list[onnx.NodeProto] = []
    while tensor in by_output and len(chain) < len(_TRANSPOSED):
        node = by_output[tensor]
        inputs = [name for name in node.input if name not in constants]
        if len(inputs) != 1:
            break
        chain.append(node)
        tensor = inputs[0]
        if node.op_type == "Neg":
            break
    return chain


def _factor(product: onnx.NodeProto, constants: Constants) -> np.ndarray:
    return constants[next(name for name in product.input if name in constants)]


def _perm(node: onnx.NodeProto) -> list[int]:
    return next(list(a.ints) for a in node.attribute if a.name == "perm")
