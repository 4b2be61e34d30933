"""Coverage: which tensors of an ONNX model its INT8 layers need a scale for, and which have one.

The layers that count are those with a kernel, and the products of two tensors, both of which need a scale.
TensorRT runs a layer in INT8 only if it finds a scale for what the layer reads and for what its fused block gives; one
missing line turns both neighbors non-INT8 ("Missing scale and zero-point for tensor ...").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from tfqat.exporters.onnx_qdq import products_of, weights_of

# Nodes that end a block when they come after a weighted node in the same kernel.
_FUSABLE = frozenset(
    "Add Sub Mul Div Relu Clip LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Erf Softplus Softsign "
    "Neg Exp Max Min BatchNormalization Identity Gelu Mish".split()
)
# What else may stand between the two products of an attention.
_ON_SCORES = frozenset({"Where", "Softmax", "Reshape", "Transpose", "Unsqueeze", "Squeeze"})


@dataclass(frozen=True)
class Coverage:
    """What is covered.

    Attributes:
        covered: tensors with a scale, in the model's order.
        missing: tensors without one that a layer meant for INT8 reads, or that its block gives.
        int8: weighted nodes and products that run in INT8.
        float_nodes: those that do not.
    """

    covered: tuple[str, ...]
    missing: tuple[str, ...]
    int8: tuple[str, ...]
    float_nodes: tuple[str, ...]

    def __str__(self) -> str:
        needed = len(self.covered) + len(self.missing)
        weighted = len(self.int8) + len(self.float_nodes)
        tensors = f"{len(self.covered)} of {needed} tensors covered"
        return f"{tensors}; {len(self.int8)} of {weighted} weighted layers in INT8"


def cover(model: onnx.ModelProto, scales: Collection[str], kept_float: Collection[str] = ()) -> Coverage:
    """The Coverage of a float ONNX model by the tensors in ``scales``; nodes in ``kept_float`` are not for INT8."""
    blocks = _Blocks(model)
    names = [*(info.name for info in model.graph.input), *(name for n in model.graph.node for name in n.output)]
    int8, floats, missing = [], [], dict[str, None]()
    for node in model.graph.node:
        if node.name not in blocks.weights and node.name not in blocks.products:
            continue
        reads = node.input[:1] if node.name in blocks.weights else dict.fromkeys(node.input)
        lacking = [name for name in reads if name not in scales] + blocks.lacking(node, scales)
        if node.name in kept_float:
            floats.append(node.name)
        elif lacking:
            floats.append(node.name)
            missing.update(dict.fromkeys(lacking))
        else:
            int8.append(node.name)
    covered = tuple(name for name in names if name in scales)
    return Coverage(covered, tuple(missing), tuple(int8), tuple(floats))


class _Blocks:
    """What the kernel of a weighted node or a product gives, found by walking forward."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.weights, self.products = weights_of(model), frozenset(products_of(model))
        self.outputs = {info.name for info in model.graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    def lacking(self, node: onnx.NodeProto, scales: Collection[str]) -> list[str]:
        """The tensors at which a way out of the block ends without a scale; none where all ways meet one."""
        fusable = _FUSABLE | _ON_SCORES if node.name in self.products else _FUSABLE
        waiting, seen, lacking = [node.output[0]], {node.output[0]}, []
        while waiting:
            tensor = waiting.pop(0)
            if tensor in scales:
                continue
            readers = self.readers.get(tensor, [])
            if tensor in self.outputs or not readers or any(r.op_type not in fusable for r in readers):
                lacking.append(tensor)
                continue
            following = [reader.output[0] for reader in readers if reader.output[0] not in seen]
            seen.update(following)
            waiting += following
        return lacking


def describe(coverage: Coverage, reasons: Mapping[str, str]) -> str:
    """The coverage as text: the line of counts, then each layer left in float and why."""
    lines = [f"Scales: {coverage}."]
    lines += [f"  float: {node} ({reasons.get(node, _missing_reason(coverage))})" for node in coverage.float_nodes]
    return "\n".join(lines)


def _missing_reason(coverage: Coverage) -> str:
    return f"no scale for {', '.join(coverage.missing[:5])}" if coverage.missing else "no reason given"
