"""Mask of a plain ONNX: a tensor of large negative numbers that softmax turns to nothing, or that carries some.

Its scale would leave one integer to all other numbers, so it has none: see ``graph.masks``, which says it of a Graph.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.graph.masks import LARGE

_SCALING = frozenset({"Mul", "Div"})
_JOINING = _SCALING | {"Where", "Add", "Sub", "Max", "Min"}
_MOVING = frozenset(
    (
        "Reshape Transpose Squeeze Unsqueeze Expand Tile Slice Gather Identity Cast QuantizeLinear DequantizeLinear"
    ).split()
)


def masks_of(model: onnx.ModelProto) -> frozenset[str]:
    """The names of the tensors that are masks, or carry one; constants aside."""
    large = {tensor.name for tensor in model.graph.initializer if _is_large(tensor)}
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Constant":
            large.update(node.output if _is_large(node.attribute[0].t) else ())
        elif not (large if node.op_type in _SCALING else large | found).isdisjoint(_joined(node)):
            found.update(node.output)
        elif node.op_type in _MOVING and node.input[0] in found | large:
            (large if node.input[0] in large else found).update(node.output)
    return frozenset(found)


def _joined(node: onnx.NodeProto) -> list[str]:
    """The tensors whose numbers the node puts together."""
    return list(node.input) if node.op_type in _JOINING else []


def _is_large(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        return False
    return bool(np.abs(numpy_helper.to_array(tensor)).max(initial=0) >= LARGE)
