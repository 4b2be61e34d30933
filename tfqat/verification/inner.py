"""Inner: tensors that no kernel gives as integers; a scale that a cache has for one goes unused.

They lie between the nodes that TensorRT runs as one kernel, or between nodes that are kept in float. A convolution
takes in the activation that alone reads it, and one residual Add on the way: of two convolutions that meet in an Add
the later one. A cache for a DLA has scales for such tensors as well.
Source: TensorRT developer guide, "Types of Fusions".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx

from tfqat.exporters.onnx_qdq import weights_of

_ACTIVATIONS = frozenset(
    "Relu Clip LeakyRelu PRelu Elu Selu Sigmoid Tanh Softplus Softsign HardSigmoid HardSwish".split()
)
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def inner_tensors(model: onnx.ModelProto, int8_nodes: Collection[str], scales: Collection[str]) -> set[str]:
    """The tensors inside the blocks of the weighted nodes that run in INT8.

    Args:
        model: float ONNX.
        int8_nodes: names of its weighted nodes that run in INT8.
        scales: the tensors with a scale; a block ends at the last of them.
    """
    blocks = _Blocks(model)
    found: set[str] = set()
    for node in model.graph.node:
        if node.name in int8_nodes:
            chain = blocks.chain(node)
            ends = [index for index, tensor in enumerate(chain) if tensor in scales]
            found.update(chain[: ends[-1]] if ends else ())
    return found


def float_tensors(model: onnx.ModelProto, kept_float: Collection[str]) -> set[str]:
    """The tensors that nodes kept in float give to nobody else."""
    reading = {name for node in model.graph.node if node.name not in kept_float for name in node.input}
    given = {name for node in model.graph.node if node.name in kept_float for name in node.output}
    return given - reading


class _Blocks:
    """Who reads what, how late each tensor is there."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.outputs = {info.name for info in model.graph.output}
        self.constants = {tensor.name for tensor in model.graph.initializer}
        self.weights = weights_of(model)
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.levels = self._levels(model.graph.node)

    def chain(self, node: onnx.NodeProto) -> list[str]:
        """The outputs of a weighted node and of those that it takes in, in order."""
        tensors, added = [node.output[0]], False
        while (reader := self._sole_reader(tensors[-1])) is not None:
            if reader.op_type == "Add" and self._is_bias(reader):
                tensors.append(reader.output[0])
            elif reader.op_type == "Add" and not added and self._takes_in(reader, tensors[-1]):
                added = True
                tensors.append(reader.output[0])
            elif reader.op_type in _ACTIVATIONS:
                return [*tensors, reader.output[0]]
            else:
                break
        return tensors

    def _levels(self, nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
        levels: dict[str, int] = {}
        for node in nodes:
            level = 1 + max((levels.get(name, 0) for name in node.input), default=0)
            levels.update(dict.fromkeys(node.output, level))
        return levels

    def _sole_reader(self, tensor: str) -> onnx.NodeProto | None:
        readers = self.readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def _is_bias(self, add: onnx.NodeProto) -> bool:
        return any(name in self.constants for name in add.input)

    def _takes_in(self, add: onnx.NodeProto, tensor: str) -> bool:
        branches = [name for name in dict.fromkeys(add.input) if self._is_branch(name)]
        return tensor in branches and tensor == max(branches, key=lambda name: self.levels[name])

    def _is_branch(self, tensor: str) -> bool:
        node = self.producers.get(tensor)
        if node is None or self._sole_reader(tensor) is None:
            return False
        return node.op_type in _CONVOLUTIONS and node.name in self.weights
