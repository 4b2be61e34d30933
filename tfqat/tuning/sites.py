"""Site: a quantized kernel of a prepared model, with the BatchNorm that folds into it: where a block's sums end.

The pre-activation is ``gain * y + shift``, y being what the layer gives and gain and shift those of its BatchNorm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfqat.graph.graph import Graph, Op
from tfqat.rewrite.fold import affine
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.tuning.pairs import called_twice, norm_behind


@dataclass(frozen=True, eq=False)
class Site:
    """A quantized op, the BatchNorm behind it if there is one, and why it cannot be tuned by itself, else empty."""

    op: Op
    norm: Op | None
    reason: str = ""

    def affine(self, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
        """Gain and shift of the BatchNorm as ``graph`` (the prepared model or its reference) has it."""
        return (np.ones(()), np.zeros(())) if self.norm is None else affine(graph.op(self.norm.name))


def sites_of(graph: Graph) -> dict[str, Site]:
    """Op name -> its Site, for each quantized kernel of a prepared model, in order."""
    shared = called_twice(graph)
    found = {}
    for op in graph.ops:
        if isinstance(op.source.built, QuantizedKernel):
            norm = norm_behind(graph, op)
            found[op.name] = Site(op, norm, _reason(op, norm, shared))
    return found


def _reason(op: Op, norm: Op | None, shared: set[str]) -> str:
    for member in (op, norm):
        if member is not None and member.name in shared:
            return f"the weights of {member.layer_name} are used more than once"
    return "channels come first" if op.source.config.get("data_format") == "channels_first" else ""
