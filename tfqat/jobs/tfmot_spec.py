"""The TFMOT model that a spec names as its checkpoint, imported as the spec asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tfqat.errors import TfqatError
from tfqat.graph.placement import Placement
from tfqat.jobs.from_tfmot import Wish, import_tfmot, plan_of
from tfqat.models.tfmot.model import Tfmot, is_tfmot
from tfqat.models.tfmot.read import read_tfmot
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.prepare import RangeOptions


def tfmot_of(spec: Any) -> Tfmot | None:
    """The TFMOT model of a spec that quantizes; None where its checkpoint is none, or it trains in float.

    Raises:
        TfqatError: a float phase or tuning, after which TFMOT's ranges would not fit; a model that cannot be read.
    """
    path = spec.model.checkpoint
    if not (spec.training.enable_qat and path and is_tfmot(path)):
        return None
    if spec.training.float_epochs:
        raise TfqatError(
            f"training_config.float_epochs: received {spec.training.float_epochs}, expected 0: {path} was quantized by "
            "TFMOT, and its ranges belong to its weights. num_epochs trains it on, quantized."
        )
    if spec.quantization.tune:
        raise TfqatError(
            f"quantization_config.tune: received {list(spec.quantization.tune)}, expected []: {path} was quantized by "
            "TFMOT, and its ranges belong to its weights."
        )
    return read_tfmot(path)


def as_tfmot_has_it(tfmot: Tfmot) -> QuantizedModel:
    """The model with TFMOT's own placement and outputs."""
    return import_tfmot(tfmot, Wish()).model


def planned(tfmot: Tfmot, spec: Any) -> Placement:
    """Where the spec's target wants Quantizers."""
    return plan_of(tfmot, _wish(spec)).placement


def imported(tfmot: Tfmot, spec: Any, calibration: Iterable[Any]) -> QuantizedModel:
    """The model for the spec's target; prints what became of TFMOT's ranges."""
    found = import_tfmot(tfmot, _wish(spec), calibration)
    print(found.report)
    return found.model


def _wish(spec: Any) -> Wish:
    section, how = spec.quantization, spec.quantization.calibration
    return Wish(
        target=section.target,
        rules=tuple(rule.model_dump(exclude_none=True) for rule in section.rules),
        # ``relu6`` of the spec does not apply: TFMOT's ranges were learned with the activations as they are. A rule may
        # still ask for it.
        options=RangeOptions(
            section.ranges,
            section.decay,
            section.observe_fraction,
            section.freeze_after,
            section.ranges_rate_multiplier,
        ),
        strict=section.strict,
        activation=section.activation,
        method=how.method,
        batches=how.batches,
        percentile=how.percentile,
    )
