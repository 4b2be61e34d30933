"""Pair: two weighted ops in a row between whose kernels a scale for each channel can be moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY, KERNEL_AXES

# Each channel by itself, and f(s * x) = s * f(x) for s > 0: what is divided out before them may be put back after them.
HOMOGENEOUS = IDENTITY | frozenset(
    (
        "relu leaky_relu prelu flatten up_sampling1d up_sampling2d up_sampling2d_smooth up_sampling3d "
        "max_pooling1d max_pooling2d max_pooling3d average_pooling1d average_pooling2d average_pooling3d "
        "global_max_pooling1d global_max_pooling2d global_max_pooling3d global_average_pooling1d "
        "global_average_pooling2d global_average_pooling3d zero_padding1d zero_padding2d zero_padding3d "
        "cropping1d cropping2d cropping3d"
    ).split()
)


@dataclass(frozen=True, eq=False)
class Pair:
    """A weighted op, the BatchNorm that folds into it, if any, and the weighted op that alone reads the result."""

    first: Op
    norm: Op | None
    second: Op

    @property
    def name(self) -> str:
        """Both names, as reports show them."""
        return f"{self.first.name} -> {self.second.name}"


def find_pairs(graph: Graph, capped: Mapping[str, str]) -> tuple[list[Pair], list[tuple[str, str]]]:
    """The Pairs of a float graph, in order, and (op, why) of the weighted ops that are the first of none.

    Args:
        graph: the model.
        capped: op name -> why a scale does not pass it, of activations that will not stay as they are.
    """
    shared = called_twice(graph)
    pairs: list[Pair] = []
    left: list[tuple[str, str]] = []
    for op in graph.ops:
        if op.kind in KERNEL_AXES:
            found = _pair_from(graph, op, capped, shared)
            if isinstance(found, Pair):
                pairs.append(found)
            else:
                left.append((op.name, found))
    return pairs, left


def norm_behind(graph: Graph, op: Op) -> Op | None:
    """The BatchNorm over the channels of a weighted op's output that alone reads it; None where there is none."""
    reader = graph.sole_consumer(op.outputs[0])
    if reader is None or reader.kind != "batch_normalization" or reader.inputs[0] != op.outputs[0]:
        return None
    rank = len(graph.shapes[op.outputs[0]])
    return reader if reader.source.config.get("axis", -1) % rank == rank - 1 else None


def _pair_from(graph: Graph, first: Op, capped: Mapping[str, str], shared: set[str]) -> Pair | str:
    norm = norm_behind(graph, first)
    op = norm or first
    while True:
        following = graph.sole_consumer(op.outputs[0])
        if following is None:
            return _why_no_sole_reader(graph, op.outputs[0])
        if following.kind in KERNEL_AXES:
            break
        if why := _why_not_through(following, capped):
            return why
        op = following
    for member in (first, *((norm,) if norm else ()), following):
        if why := _why_not_scaled(member, shared):
            return why
    return Pair(first, norm, following)


def _why_no_sole_reader(graph: Graph, tensor: str) -> str:
    if tensor in graph.outputs:
        return "gives a model output"
    return f"{len(graph.consumers(tensor))} ops read the result"


def _why_not_through(op: Op, capped: Mapping[str, str]) -> str:
    if op.name in capped:
        return capped[op.name]
    if op.kind not in HOMOGENEOUS:
        return f"a scale does not pass {op.kind}"
    return _why_first(op)


def _why_not_scaled(op: Op, shared: set[str]) -> str:
    if op.name in shared:
        return f"the weights of {op.layer_name} are used more than once"
    config = op.source.config
    plain = 1 + config["use_bias"] if op.kind in KERNEL_AXES else 2 + config["scale"] + config["center"]
    if len(op.source.values) != plain:
        return f"{op.layer_name} has weights of its own besides the usual ones"
    return _why_first(op)


def _why_first(op: Op) -> str:
    first = op.source.config.get("data_format") == "channels_first"
    return "channels come first" if first else ""


def called_twice(graph: Graph) -> set[str]:
    """Names of the ops that share a weight with another."""
    uses = Counter(id(value) for op in graph.ops for value in op.source.values)
    return {op.name for op in graph.ops if any(uses[id(value)] > 1 for value in op.source.values)}
