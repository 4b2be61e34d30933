"""Group: tensors whose ranges are tied, because range-sharing ops join them."""

from __future__ import annotations

from collections.abc import Iterable

from tfqat.graph.graph import Op


def groups_of(sharing: Iterable[Op], quantized: Iterable[str]) -> dict[str, str]:
    """Quantized tensor -> name of its group; tensors alone in theirs are left out.

    All inputs and outputs of an op in ``sharing`` (a Concat, a MaxPool) are in one group, named after its first member.
    """
    parent: dict[str, str] = {}

    def root(tensor: str) -> str:
        while parent.get(tensor, tensor) != tensor:
            parent[tensor] = parent.get(parent[tensor], parent[tensor])
            tensor = parent[tensor]
        return tensor

    for op in sharing:
        first = root(op.inputs[0])
        for tensor in (*op.inputs[1:], *op.outputs):
            parent[root(tensor)] = first
    members: dict[str, list[str]] = {}
    for tensor in quantized:
        members.setdefault(root(tensor), []).append(tensor)
    return {tensor: group[0] for group in members.values() if len(group) > 1 for tensor in group}
