"""TfmotPlan: the Placement for a TFMOT model, TFMOT's own or a target's, and the ranges for its tensors and kernels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tfqat.adoption.ranges import CarriedRange, carry, kernel_extent, living, moved_to_folded
from tfqat.core.scheme import Scheme
from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import KERNEL_AXES
from tfqat.graph.place import place
from tfqat.graph.placement import Placement
from tfqat.graph.rows import Row
from tfqat.graph.sign import is_nonnegative
from tfqat.graph.target import Target
from tfqat.models.tfmot.model import Tfmot
from tfqat.rewrite.plan import Rules, plan_for
from tfqat.rewrite.prepare import RangeOptions, check_plan
from tfqat.view.view import view

_DEFAULTS = RangeOptions()
OWN = "as TFMOT quantized it"
FLOAT_KERNEL = "TFMOT left its kernel in float"


@dataclass(frozen=True, eq=False)
class TfmotPlan:
    """What is going to be built.

    Attributes:
        graph: the float model in the form that the target runs.
        placement: where Quantizers stand.
        ranges: tensor -> range, also of tensors that get no Quantizer.
        scales: op -> scale of its kernel, one a channel or one for the whole.
        requantized: (op, why) of the quantized kernels without one.
    """

    graph: Graph
    placement: Placement
    ranges: Mapping[str, CarriedRange]
    scales: Mapping[str, np.ndarray]
    requantized: tuple[tuple[str, str], ...]

    def bounds(self, tensor: str) -> tuple[float, float]:
        """The real range (low, high) for the Quantizer of a tensor that has one."""
        found, scheme = self.ranges[tensor].range, self.placement.activations.get(tensor)
        if scheme is None or not scheme.symmetric:
            return found.low, found.high
        # Values that cannot be need no room, whatever bound TFMOT started with.
        producer = self.graph.producer(tensor)
        high = min(found.high, 6.0) if producer is not None and producer.kind == "relu6" else found.high
        return (0.0 if is_nonnegative(self.graph, tensor) else found.low), high

    def shared_bounds(self, tensor: str) -> tuple[float, float]:
        """The range that the tensor is rounded to: the largest in its group."""
        group = self.placement.groups.get(tensor)
        members = [t for t, name in self.placement.groups.items() if name == group] if group else [tensor]
        lows, highs = zip(*(self.bounds(member) for member in members if member in self.ranges), strict=True)
        return min(lows), max(highs)

    @property
    def without_range(self) -> tuple[str, ...]:
        """Tensors that get a Quantizer or an observer, and have no range."""
        wanted = (*self.placement.activations, *self.placement.observed)
        return tuple(t for t in wanted if t not in self.ranges and t not in self.placement.fixed)


def own_plan(tfmot: Tfmot, target: Target, calibrated: bool = False) -> TfmotPlan:
    """TFMOT's own placement: a Quantizer just where TFMOT rounds, so that the outputs are the same.

    What ``target`` needs a range for besides is only watched, such as a softmax's output, which TFMOT leaves to the
    device: where TFMOT has one for a tensor that shares it, or all of that where they will be ``calibrated``. Ranges
    from 0 to 0 are no ranges then; else they stay as they are, and give zeros as in TFMOT.
    """
    graph = view(tfmot.model)
    base = place(graph, target)
    tensors = (*graph.inputs, *(tensor for op in graph.ops for tensor in op.outputs))
    activations = {t: _scheme_of(tfmot, t, target) for t in tensors if t in tfmot.activations}
    learned = living(tfmot.activations) if calibrated else tfmot.activations
    ranges = carry(graph, learned, _sharing(base))
    needed = [tensor for tensor in base.activations if tensor not in activations]
    weights = {op.name: _kernel_scheme(tfmot, graph, op, target) for op in graph.ops if op.name in tfmot.kernels}
    placement = replace(
        base,
        rows=tuple(_own_row(row, graph, weights, activations) for row in base.rows),
        weights=weights,
        activations=activations,
        groups={},
        observed=tuple(t for t in needed if calibrated or t in ranges or t in base.fixed),
        fixed={tensor: bounds for tensor, bounds in base.fixed.items() if tensor in needed},
    )
    scales, requantized = _scales(tfmot, graph, placement)
    return TfmotPlan(graph, placement, ranges, scales, requantized)


def target_plan(
    tfmot: Tfmot,
    target: str,
    rules: Rules = (),
    relu6: Collection[str] = (),
    activation: str | None = None,
    options: RangeOptions = _DEFAULTS,
    strict: bool = False,
) -> TfmotPlan:
    """The target's placement, as ``prepare`` has it, with the ranges of TFMOT where a tensor has one.

    Raises:
        TfqatError: see ``prepare``.
    """
    plan = plan_for(tfmot.model, target, rules, relu6, activation)
    check_plan(plan, options, strict)
    learned = moved_to_folded(view(tfmot.model), plan.graph, living(tfmot.activations))
    ranges = carry(plan.graph, learned, _sharing(plan.placement))
    scales, requantized = _scales(tfmot, plan.graph, plan.placement)
    return TfmotPlan(plan.graph, plan.placement, ranges, scales, requantized)


def _sharing(placement: Placement) -> set[str]:
    return {row.op for row in placement.rows if row.state == "shared"}


def _scheme_of(tfmot: Tfmot, tensor: str, target: Target) -> Scheme:
    found = tfmot.activations[tensor]
    return Scheme(found.bits, target.activation.signed, symmetric=False, narrow=found.narrow)


def _kernel_scheme(tfmot: Tfmot, graph: Graph, op: Op, target: Target) -> Scheme:
    """One scale a channel, so that a BatchNorm can be folded; one for the whole where that is what the target runs."""
    found = tfmot.kernels[op.name]
    reader = graph.sole_consumer(op.outputs[0])
    folds = reader is not None and reader.kind == "batch_normalization"
    whole = op.kind in target.per_tensor and found.extent.size == 1 and not folds
    return Scheme(found.bits, narrow=True, axis=() if whole else KERNEL_AXES[op.kind])


def _own_row(row: Row, graph: Graph, weights: Collection[str], activations: Collection[str]) -> Row:
    op = graph.op(row.op)
    rounded = any(tensor in activations for tensor in op.outputs)
    if row.op in weights or rounded:
        return replace(row, state="int8", reason=OWN, output=False)
    if op.kind in KERNEL_AXES:
        return replace(row, state="float", reason=FLOAT_KERNEL)
    return row


def _scales(
    tfmot: Tfmot, graph: Graph, placement: Placement
) -> tuple[dict[str, np.ndarray], tuple[tuple[str, str], ...]]:
    """The kernel scales that TFMOT's ranges give, and the quantized kernels that get none."""
    original = {op.name for op in view(tfmot.model).ops}
    gone = original - {op.name for op in graph.ops}
    readers = {op.inputs[0]: op.name for op in view(tfmot.model).ops}
    scales: dict[str, np.ndarray] = {}
    anew: list[tuple[str, str]] = []
    for op in graph.ops:
        scheme = placement.weights.get(op.name)
        if scheme is None:
            continue
        found = tfmot.kernels.get(op.name)
        if found is None:
            anew.append((op.name, FLOAT_KERNEL))
        elif readers.get(op.outputs[0]) in gone:
            anew.append((op.name, f"as {readers[op.outputs[0]]} is folded into it first"))
        elif (extent := kernel_extent(found, op.kernel_shape, scheme.axis)) is None:
            anew.append((op.name, "one for the whole kernel, where TFMOT has one a channel"))
        else:
            scales[op.name] = extent / np.float32(scheme.qmax)
    return scales, tuple(anew)
