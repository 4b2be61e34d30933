"""Ranges: where the range of a tensor comes from: its own, its input's, one that the device fixes; and its Scheme."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from tfqat.core.scheme import Scheme
from tfqat.graph.graph import Graph, Op
from tfqat.graph.groups import groups_of
from tfqat.graph.kinds import IDENTITY
from tfqat.graph.masks import masks_in
from tfqat.graph.sign import is_nonnegative
from tfqat.graph.target import Range, Target


class Ranges:
    """What a target says of the ranges in a graph.

    Ops named in ``kept`` stay float and have no say; tensors in ``constants`` have no range.
    """

    def __init__(
        self, graph: Graph, target: Target, kept: Collection[str], constants: frozenset[str] = frozenset()
    ) -> None:
        self.graph, self.target, self.kept, self.constants = graph, target, kept, constants
        self.masks = masks_in(graph)

    def has_range(self, tensor: str) -> bool:
        """Whether the tensor can be quantized: it holds floats, no mask, and is no constant."""
        return "float" in self.graph.dtypes[tensor] and tensor not in self.masks and tensor not in self.constants

    def shares(self, op: Op) -> bool:
        """Whether the op's output has the range of its input, whose integers it passes on."""
        own = op.name in self.kept or not self.has_range(op.outputs[0]) or self.mixes(op)
        return op.kind in self.target.shared_range | IDENTITY and not own and any(map(self.has_range, op.inputs))

    def is_tied(self, op: Op) -> bool:
        """Whether the op's output is rounded to the range of its input."""
        return op.kind in self.target.tied_range and op.name not in self.kept and self.has_range(op.outputs[0])

    def mixes(self, op: Op) -> bool:
        """Whether an op that would share a range joins a constant, or a tensor whose range is fixed, with others.

        It has a Quantizer, which the others' range is tied to, so that only that tensor is requantized.
        """
        if op.kind not in self.target.shared_range or len(set(op.inputs)) < 2:
            return False
        joined = not self.constants.isdisjoint(op.inputs) and any(map(self.has_range, op.inputs))
        return joined or any(self.fixed(tensor) is not None for tensor in op.inputs)

    def fixed(self, tensor: str) -> Range | None:
        """The range that the device fixes for a tensor, also through ops that share or keep their input's."""
        op = self.graph.producer(tensor)
        while op is not None and op.name not in self.kept:
            if op.kind in self.target.fixed_range:
                return self.target.fixed_range[op.kind]
            passes = op.kind in self.target.shared_range | self.target.tied_range | IDENTITY
            if not passes or len(set(op.inputs)) > 1:
                return None
            op = self.graph.producer(op.inputs[0])
        return None

    def on_grid(self, quantized: Iterable[str]) -> set[str]:
        """All tensors on an integer grid: the quantized ones, and what range-sharing ops make of them."""
        ranged = set(quantized)
        for op in self.graph.ops:
            if self.shares(op) and ranged.issuperset(op.inputs):
                ranged.update(op.outputs)
        return ranged

    def groups(self, quantized: Collection[str], ranged: Collection[str]) -> dict[str, str]:
        """Quantized tensor -> name of the group whose range it shares; ``ranged`` as ``on_grid`` gives it."""
        sharing = [op for op in self.graph.ops if self.shares(op) and all(tensor in ranged for tensor in op.inputs)]
        tied = [op for op in self.graph.ops if self.is_tied(op)]
        mixing = [self._free(op, ranged) for op in self.graph.ops if self.mixes(op) and op.name not in self.kept]
        return groups_of([*sharing, *tied, *mixing], [tensor for tensor in quantized if self.fixed(tensor) is None])

    def schemes(
        self, quantized: Iterable[str], groups: Mapping[str, str], heads: Mapping[str, Op]
    ) -> dict[str, Scheme]:
        """Tensor -> Scheme; a group whose members would differ has the target's usual one.

        Args:
            quantized: the tensors.
            groups: as ``groups`` gives them.
            heads: tensor that leaves a block -> the op at its head.
        """
        schemes = {tensor: self._scheme(tensor, heads) for tensor in quantized}
        differing = {name for tensor, name in groups.items() if schemes[tensor] != schemes[name]}
        return {
            tensor: self.target.activation if groups.get(tensor) in differing else scheme
            for tensor, scheme in schemes.items()
        }

    def _free(self, op: Op, ranged: Collection[str]) -> Op:
        """The op as if it read only the tensors whose range can be its output's (its output alone if none can)."""
        free = tuple(tensor for tensor in op.inputs if tensor in ranged and self.fixed(tensor) is None)
        return replace(op, inputs=free or op.outputs)

    def _scheme(self, tensor: str, heads: Mapping[str, Op]) -> Scheme:
        op = heads.get(tensor) if self.target.heads_decide else self.graph.producer(tensor)
        if op is not None and op.kind in self.target.activation_of:
            return self.target.activation_of[op.kind]
        if self.target.nonnegative is not None and is_nonnegative(self.graph, tensor):
            return self.target.nonnegative
        return self.target.activation
