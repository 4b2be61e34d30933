"""Blocks of a plain ONNX: the tensors between nodes that TensorRT runs as one kernel, where no Q/DQ may stand.

A calibrator of TensorRT writes a line for every tensor, and the engine then uses those that leave a kernel. With Q/DQ
nodes each pair is obeyed, so a pair between a convolution and its activation would break the kernel apart.

A kernel is: a weighted node; its BatchNormalization, bias or scale; of one residual Add the branch that takes the Add
in (the one without a scale of its own, or else the later one); an activation, also one that is spelled as several
nodes. So are an Add or BatchNormalization and an activation; and the first product of an attention, the scaling, biases
and masks of its scores, and their softmax.
Source: TensorRT developer guide, "Types of Fusions", "Q/DQ Layer-Placement Recommendations" and "Fused Attention".
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from tfqat.exporters.onnx_qdq import products_of, weights_of
from tfqat.exporters.onnx_tidy import readers_of

_ACTIVATIONS = frozenset(
    "Relu Clip LeakyRelu PRelu Elu Selu Celu Sigmoid Tanh Softplus Softsign HardSigmoid HardSwish Gelu Mish".split()
)
_BINARY = frozenset("Add Sub Mul Div".split())
# Nodes of which an activation of several is made; all that they read else is one number.
_SPELLED = _ACTIVATIONS | _BINARY | frozenset("Erf Neg Exp Min Max Log Pow Sqrt Abs Reciprocal".split())
_TAKES_ADD = frozenset({"Conv", "ConvTranspose"})
# What may happen to scores before their softmax, each node giving them on to the next one alone.
_ON_SCORES = _BINARY | {"Tanh", "Where", "Cast", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze"}
# They read no values: a causal mask of open length asks the scores for their shape.
_ASKING = frozenset({"Shape", "Size"})
_MOST_NODES = 12  # of one activation


def inside(model: onnx.ModelProto, scales: Collection[str], spelled: bool = True) -> set[str]:
    """The tensors inside kernels, as far as the tensor that ends the kernel is in ``scales``.

    Args:
        model: float ONNX.
        scales: the tensors with a scale.
        spelled: whether an activation of several nodes belongs to the kernel, which TensorRT does not promise.
    """
    blocks = _Blocks(model, scales, spelled)
    found: set[str] = set()
    for node in model.graph.node:
        if node.name in blocks.weights or node.op_type in {"BatchNormalization", *_BINARY}:
            found |= blocks.inside(node)
    for node in model.graph.node:
        if node.name in blocks.products:
            found |= blocks.scores(node)
    return found


def between_floats(model: onnx.ModelProto, kept_float: Collection[str]) -> set[str]:
    """The tensors that nodes kept in float give to nobody else."""
    reading = {name for node in model.graph.node if node.name not in kept_float for name in node.input}
    given = {name for node in model.graph.node if node.name in kept_float for name in node.output}
    return given - reading


def spelled_out(model: onnx.ModelProto, scales: Collection[str]) -> list[str]:
    """The tensors without a scale on which a kernel's activation of several nodes begins (``x * sigmoid(x)``)."""
    within, readers = inside(model, scales), readers_of(model.graph.node)
    return [
        name
        for node in model.graph.node
        for name in node.output
        if name in within and name not in scales and len(readers.get(name, ())) > 1
    ]


class _Blocks:
    """Who reads what, how late each tensor is there, and which have a scale."""

    def __init__(self, model: onnx.ModelProto, scales: Collection[str], spelled: bool) -> None:
        self.scales, self.spelled = scales, spelled
        self.outputs = {info.name for info in model.graph.output}
        self.sizes = {t.name: _size(t) for t in model.graph.initializer}
        self.weights, self.products = weights_of(model), frozenset(products_of(model))
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.readers = readers_of(model.graph.node)
        self.levels: dict[str, int] = {}
        for node in model.graph.node:
            level = 1 + max((self.levels.get(name, 0) for name in node.input), default=0)
            self.levels.update(dict.fromkeys(node.output, level))

    def inside(self, head: onnx.NodeProto) -> set[str]:
        """The tensors within the kernel that begins with ``head``; none where it ends without a scale."""
        within: list[set[str]] = []
        tensor, weighted = head.output[0], head.name in self.weights
        added, folding = not (weighted and head.op_type in _TAKES_ADD), weighted
        ends = [tensor]
        while True:
            reader = self._sole_reader(tensor)
            if folding and reader is not None and self._folds(reader):
                step = {tensor}
            elif reader is not None and not added and reader.op_type == "Add" and self._takes_in(reader, tensor):
                step, added, folding = {tensor}, True, False  # what scales the sum is no part of the kernel
            else:
                break
            within.append(step)
            tensor = reader.output[0]
            ends.append(tensor)
        end, step = self._activation(tensor)
        within.append(step)
        ends.append(end)
        # As far as the last tensor with a scale.
        last = max((i for i, name in enumerate(ends) if name in self.scales), default=0)
        return set[str]().union(*within[:last])

    def scores(self, product: onnx.NodeProto) -> set[str]:
        """The tensors between a product and the softmax of what it gives; none where that has no scale."""
        within, tensor = set[str](), product.output[0]
        while (reader := self._sole_reader(tensor, _ASKING)) is not None:
            within.add(tensor)
            tensor = reader.output[0]
            if reader.op_type == "Softmax":
                return within if self._ends_with_scale(tensor) else set()
            if reader.op_type not in _ON_SCORES:
                break
        return set()

    def _ends_with_scale(self, softmax: str) -> bool:
        """Whether a softmax has a scale, or what a mask leaves of it."""
        reader = self._sole_reader(softmax)
        masked = reader is not None and reader.op_type == "Where" and reader.output[0] in self.scales
        return softmax in self.scales or masked

    def _folds(self, reader: onnx.NodeProto) -> bool:
        """Whether a node's numbers go into the kernel's own: BatchNormalization, a bias, a scale a channel."""
        constant = any(name in self.sizes for name in reader.input)
        return reader.op_type == "BatchNormalization" or (
            reader.op_type in _BINARY and constant and not self._spells(reader)
        )

    def _spells(self, reader: onnx.NodeProto) -> bool:
        """Whether a node with one number begins an activation rather than scaling a kernel."""
        following = self._sole_reader(reader.output[0])
        numbers = all(self.sizes.get(name, 1) == 1 for name in reader.input)
        return numbers and following is not None and following.op_type in {"Clip", "Erf"}

    def _activation(self, tensor: str) -> tuple[str, set[str]]:
        """Where the activation on ``tensor`` ends, and what lies between; the tensor itself where there is none."""
        if tensor in self.outputs:
            return tensor, set()
        within: set[str] = {tensor}
        first = self._sole_reader(tensor)
        if first is not None and first.op_type in _ACTIVATIONS and first.input[0] == tensor:
            return first.output[0], within
        if not self.spelled or (first is not None and not self._spells(first)):
            return tensor, set()
        end = self._joined(tensor, within)
        return (tensor, set()) if end is None else (end, within)

    def _joined(self, start: str, within: set[str]) -> str | None:
        """The tensor in which all ways from ``start`` through elementwise nodes meet; fills ``within``."""
        open_reads = {id(node): node for node in self.readers.get(start, [])}
        kinds: set[str] = set()
        for _ in range(_MOST_NODES):
            ready = [n for n in open_reads.values() if self._is_ready(n, within)]
            if not ready:
                return None
            node = ready[0]
            del open_reads[id(node)]
            result = node.output[0]
            kinds.add(node.op_type)
            if not open_reads and not self._goes_on(result, kinds):
                return result
            if result in self.outputs:
                return None
            within.add(result)
            open_reads.update({id(reader): reader for reader in self.readers.get(result, [])})
        return None

    def _is_ready(self, node: onnx.NodeProto, within: Collection[str]) -> bool:
        return node.op_type in _SPELLED and all(
            name in within or not name or self.sizes.get(name) == 1 for name in node.input
        )

    def _goes_on(self, tensor: str, kinds: Collection[str]) -> bool:
        """Whether the one reader of a tensor still belongs to the activation: ``clip(x + 3)``, and then ``/ 6``."""
        reader = self._sole_reader(tensor)
        if reader is None or not self._is_ready(reader, {tensor}):
            return False
        step = self.producers[tensor].op_type, reader.op_type
        return step in _CHAINS or (step == ("Mul", "Mul") and "Erf" in kinds)

    def _takes_in(self, add: onnx.NodeProto, tensor: str) -> bool:
        if len(set(add.input)) != 2 or any(name in self.sizes for name in add.input):
            return False
        branches = [name for name in add.input if self._is_branch(name)]
        bare = [name for name in branches if name not in self.scales]
        chosen = bare if len(bare) == 1 else branches
        return tensor == max(chosen, key=lambda name: self.levels[name], default=None)

    def _is_branch(self, tensor: str) -> bool:
        """Whether a convolution, with what folds into it, gives the tensor to one reader."""
        while True:
            node = self.producers.get(tensor)
            if node is None or self._sole_reader(tensor) is None:
                return False
            if node.name in self.weights:
                return node.op_type in _TAKES_ADD
            inputs = [name for name in node.input if name not in self.sizes]
            if not self._folds(node) or len(inputs) != 1:
                return False
            tensor = inputs[0]

    def _sole_reader(self, tensor: str, besides: Collection[str] = ()) -> onnx.NodeProto | None:
        """The only node that reads the tensor, those of the kinds in ``besides`` aside."""
        readers = [node for node in self.readers.get(tensor, []) if node.op_type not in besides]
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None


# One after the other within one activation: hard sigmoid and hard swish, GELU.
_CHAINS = frozenset({("Add", "Clip"), ("Clip", "Mul"), ("Clip", "Div"), ("Div", "Erf"), ("Mul", "Erf"), ("Erf", "Add")})


def _size(tensor: onnx.TensorProto) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size
