"""From TFMOT: a model that TensorFlow Model Optimization trained, made into a QuantizedModel, which exporters take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfqat.adoption.batches import accuracy, check_batches, is_labelled
from tfqat.adoption.plan import TfmotPlan, own_plan, target_plan
from tfqat.adoption.ranges import living, names, settled
from tfqat.adoption.report import ImportReport, TakenRange
from tfqat.calibration.calibrate import calibrate, check_method
from tfqat.core.scheme import SCALE_FLOOR, Scheme, scale_and_zero_point
from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph, Op, replace_ops
from tfqat.models.tfmot.model import Tfmot
from tfqat.models.tfmot.read import read_tfmot
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.plan import Rules
from tfqat.rewrite.prepare import RangeOptions, quantize
from tfqat.rewrite.quantizer import RangeEstimator, extent_of_range
from tfqat.targets import load_target
from tfqat.view.view import view

_DEFAULTS = RangeOptions()
# TFMOT's scheme is that of TensorFlow Lite.
OWN_TARGET = "tflite"


@dataclass(frozen=True, eq=False)
class Imported:
    """A TFMOT model as tfqat has it: the model, and what became of its ranges."""

    model: QuantizedModel
    report: ImportReport


@dataclass(frozen=True)
class Wish:
    """How a TFMOT model shall be imported; see ``from_tfmot``."""

    target: str | None = None
    rules: Rules = ()
    relu6: Collection[str] = ()
    options: RangeOptions = _DEFAULTS
    strict: bool = False
    activation: str | None = None
    method: str = "mse"
    batches: int = 8
    percentile: float = 99.99


def from_tfmot(
    model_or_path: Any,
    target: str | None = None,
    dataset: Iterable[Any] | None = None,
    rules: Rules = (),
    relu6: Collection[str] = (),
    ranges: str = "moving_average",
    *,
    decay: float = 0.99,
    observe_fraction: float = 1.0,
    freeze_after: int | None = None,
    ranges_rate_multiplier: float = 1.0,
    strict: bool = False,
    activation: str | None = None,
    method: str = "mse",
    batches: int = 8,
    percentile: float = 99.99,
) -> QuantizedModel:
    """A model trained by ``tfmot.quantization.keras.quantize_model``, with its weights and learned ranges, in Keras 3.

    It trains on, freezes, finalizes, saves and exports as what ``prepare`` returns; the scales of its kernels stay as
    TFMOT had them. What became of each range is printed, and kept in ``model.placement.changes``. Neither tf_keras nor
    TFMOT is imported, and no code of a file is run.

    Args:
        model_or_path: a live tf_keras model, or the path of the `.h5` file that it was saved to.
        target: name of the target to place Quantizers for; TFMOT's ranges are taken to its tensors. None keeps TFMOT's
            own placement, with the same outputs as in TFMOT; it exports as ``tflite``.
        dataset: batches as ``model.fit`` takes them, or ``(x, y)``: sets the ranges of tensors that TFMOT has none for
            (or one from 0 to 0, which gives zeros alone); where it has labels, accuracies are reported.
        rules, relu6, strict, activation: as for ``prepare``; only with a target.
        ranges, decay, observe_fraction, freeze_after, ranges_rate_multiplier: how ranges go on in training, as for
            ``prepare``.
        method, batches, percentile: of the calibration; see ``calibrate``.

    Raises:
        TfqatError: what cannot be read (the message names layer and class), a tensor without any range where there is
            no dataset, a dataset that the model cannot take, an unknown target or option.
    """
    options = RangeOptions(ranges, decay, observe_fraction, freeze_after, ranges_rate_multiplier)
    wish = Wish(target, tuple(rules), relu6, options, strict, activation, method, batches, percentile)
    check_method(method, batches, percentile)
    tfmot = read_tfmot(model_or_path)
    data = list(dataset) if isinstance(dataset, Iterator) else dataset
    imported = import_tfmot(tfmot, wish, data)
    before, after = _accuracies(tfmot, imported.model, wish, data)
    print(replace(imported.report, accuracy_before=before, accuracy_after=after))
    return imported.model


def import_tfmot(tfmot: Tfmot, wish: Wish, dataset: Iterable[Any] | None = None) -> Imported:
    """What ``from_tfmot`` makes of a model that has been read, without measuring its accuracy.

    Raises:
        TfqatError: see ``from_tfmot``.
    """
    if dataset is not None:
        check_batches(tfmot.model, dataset)
    plan = plan_of(tfmot, wish, calibrated=dataset is not None)
    missing = plan.without_range
    if missing and dataset is None:
        raise TfqatError(
            f"{len(missing)} tensors that {plan.placement.target} needs a range for have none in TFMOT, and share "
            f"none: {names(missing)}. Give some batches to calibrate them by: from_tfmot(..., dataset=...)."
        )
    report = _report(tfmot, wish.target, plan, missing)
    placement = replace(plan.placement, changes=(*plan.placement.changes, *report.lines()))
    own = wish.target is None
    model = quantize(_settled(tfmot, plan), placement, wish.options, plan.scales.keys(), tfmot_kernels=own)
    # Before calibrating, which runs the kernels rounded; ranges of TFMOT come after it, which sets those of all.
    _hold(model, plan)
    if missing and dataset is not None:
        _calibrate(model, dataset, wish, missing)
    _set_ranges(model, plan)
    return Imported(model, report)


def plan_of(tfmot: Tfmot, wish: Wish, calibrated: bool = False) -> TfmotPlan:
    """Where Quantizers will stand, and the ranges that TFMOT has for them; ``calibrated`` says that others get theirs.

    Raises:
        TfqatError: a wish that the target, or TFMOT's own placement, cannot honour.
    """
    if wish.target is not None:
        return target_plan(tfmot, wish.target, wish.rules, wish.relu6, wish.activation, wish.options, wish.strict)
    given = [name for name in ("rules", "relu6", "strict", "activation") if getattr(wish, name)]
    if given:
        raise TfqatError(
            f"{given[0]}: without a target the placement is TFMOT's own, which nothing changes; name a target, such as "
            f"target={OWN_TARGET!r}."
        )
    return own_plan(tfmot, load_target(OWN_TARGET), calibrated)


def _settled(tfmot: Tfmot, plan: TfmotPlan) -> Graph:
    """The graph with the kernels moved off ties."""

    def change(op: Op) -> Op:
        if op.name not in plan.scales:
            return op
        kernel = np.asarray(keras.ops.convert_to_numpy(op.source.values[0]), np.float32)
        values = (settled(kernel, tfmot.kernels[op.name]), *op.source.values[1:])
        return replace(op, source=replace(op.source, values=values))

    return replace_ops(plan.graph, change)


def _hold(model: QuantizedModel, plan: TfmotPlan) -> None:
    for op in view(model).ops:
        if isinstance(op.source.built, QuantizedKernel) and op.name in plan.scales:
            op.source.built.hold_scale(np.maximum(plan.scales[op.name], SCALE_FLOOR))


def _calibrate(model: QuantizedModel, dataset: Iterable[Any], wish: Wish, missing: tuple[str, ...]) -> None:
    report = calibrate(model, dataset, wish.method, wish.batches, wish.percentile)
    blind = [tensor for tensor in missing if tensor in report.no_data]
    if blind:
        raise TfqatError(
            f"dataset: {len(blind)} tensors that have no range in TFMOT saw no data in {report.batches} batches: "
            f"{names(blind)}. Give at least one batch of images."
        )


def _set_ranges(model: QuantizedModel, plan: TfmotPlan) -> None:
    for op in view(model).ops:
        layer, tensor = op.source.built, op.inputs[0]
        if isinstance(layer, RangeEstimator) and layer.fixed_range is None and tensor in plan.ranges:
            bounds = plan.bounds(tensor)
            bounds = bounds if layer.scheme.symmetric else _nudged(layer.scheme, *bounds)
            layer.set_range(extent_of_range(layer.scheme, *bounds))


def _nudged(scheme: Scheme, low: float, high: float) -> tuple[float, float]:
    """The range, or the one next to it whose zero point is TFMOT's: TensorFlow rounds halves up, tfqat to even."""
    scale, zero_point = scale_and_zero_point(scheme, low, high)
    levels = scheme.qmax - scheme.qmin
    theirs = int(np.clip(np.floor(np.float32(-low) / scale + np.float32(0.5)), 0, levels)) + scheme.qmin
    if theirs == int(zero_point):
        return low, high
    return float(scale) * (scheme.qmin - theirs), float(scale) * (scheme.qmax - theirs)


def _report(tfmot: Tfmot, target: str | None, plan: TfmotPlan, calibrated: tuple[str, ...]) -> ImportReport:
    placement = plan.placement
    taken = tuple(_taken(t, scheme, plan) for t, scheme in placement.activations.items() if t in plan.ranges)
    reasons = {row.op: row.reason for row in placement.rows}
    known = {op.name for op in plan.graph.ops}
    dropped = tuple(
        (tensor, reasons.get(tensor, "it is no tensor of the target's graph"))
        for tensor in tfmot.activations
        if tensor not in placement.activations and tensor in known
    )
    untrained = [t for t, found in tfmot.activations.items() if not found.trained and t not in calibrated]
    untrained += [op for op, found in tfmot.kernels.items() if not found.trained]
    return ImportReport(
        source=tfmot.source,
        target=target or "",
        taken=taken,
        dropped=dropped,
        calibrated=calibrated,
        held=tuple(plan.scales),
        requantized=plan.requantized,
        zeros=tuple(item.tensor for item in taken if (item.low, item.high) == (0.0, 0.0)),
        untrained=tuple(untrained),
    )


def _taken(tensor: str, scheme: Scheme, plan: TfmotPlan) -> TakenRange:
    carried = plan.ranges[tensor]
    found = carried.range
    old_step = (found.high - found.low) / (2**found.bits - 1 - found.narrow)
    scale, zero_point = scale_and_zero_point(scheme, *plan.shared_bounds(tensor))
    low, high = (float(scale) * (q - int(zero_point)) for q in (scheme.qmin, scheme.qmax))
    wider = float(scale) / old_step if old_step else 1.0
    return TakenRange(tensor, found.low, found.high, low, high, wider, scheme.symmetric, carried.origin)


def _accuracies(tfmot: Tfmot, model: QuantizedModel, wish: Wish, data: Any) -> tuple[float | None, float | None]:
    """Top-1 before and after on a labelled dataset; None without labels, or where outputs are no classes."""
    if data is None or not is_labelled(data) or len(model.outputs) != 1 or model.outputs[0].shape[-1] in (None, 1):
        return None, None
    after = accuracy(model, data)
    # With TFMOT's own placement the outputs differ just where a range from 0 to 0 was calibrated.
    same = wish.target is None and living(tfmot.activations).keys() >= model.placement.activations.keys()
    before = after if same else accuracy(import_tfmot(tfmot, Wish()).model, data)
    return before, after
