"""Phases: float training, then quantization without training; what `train` and `quantize` have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from tfqat.calibration.calibrate import calibrate
from tfqat.graph.placement import Placement
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.prepare import prepare, relu6_model
from tfqat.training import stages
from tfqat.training.checkpoint import restore, save_model
from tfqat.training.criterion import Criterion
from tfqat.training.distillation import distill
from tfqat.training.journal import add_status
from tfqat.training.loop import compile_phase, train_phase
from tfqat.training.results import Results
from tfqat.training.summary import write_summary
from tfqat.tuning.equalize import NAME as EQUALIZE
from tfqat.tuning.equalize import equalize
from tfqat.tuning.report import TuneReport
from tfqat.tuning.tune import tune

# Phase of the lines in status.jsonl that `tfqat quantize` writes; those of a whole training have none.
QUANTIZE = "quantize"


@contextmanager
def noted(results: Results, phase: str | None = None) -> Iterator[None]:
    """Notes in status.jsonl how the block began and ended, also where it ends by an error or Ctrl-C."""
    again = results.checkpoints.exists()
    add_status(results, "STARTED", "Started again, from the last checkpoint." if again else "Started.", phase)
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            error = sys.exc_info()[1]
            add_status(results, "FAILURE", f"{type(error).__name__}: {error}", phase)
    kpi = {stage.name: stage.score for stage in stages.read_stages(results.stages)}
    add_status(results, "SUCCESS", "Finished.", phase, kpi=kpi)


def float_phase(model: keras.Model, criterion: Criterion, data: Any, spec: Any, results: Results) -> None:
    """Leaves ``model`` trained, `float.keras` and the float row."""
    if results.float_model.exists():
        restore(model, results.float_model)
    else:
        compile_phase(model, criterion, data, spec, "float")
        train_phase(model, criterion, data, spec, results, "float")
    criterion.compile(model)
    if not results.float_model.exists():
        save_model(model, results.float_model)
    add_row(stages.FLOAT, model, criterion, data, results, results.float_model.stat().st_size)


def prepared(model: keras.Model, spec: Any) -> QuantizedModel:
    """The float model prepared as the spec asks, as it is."""
    section = spec.quantization
    return prepare(
        model,
        target=section.target,
        rules=_rules(spec),
        relu6=section.relu6,
        ranges=section.ranges,
        decay=section.decay,
        observe_fraction=section.observe_fraction,
        freeze_after=section.freeze_after,
        ranges_rate_multiplier=section.ranges_rate_multiplier,
        strict=section.strict,
        activation=section.activation,
    )


def planned(model: keras.Model, spec: Any) -> Placement:
    """The Placement that ``model`` will get; finds what cannot be done before hours of training."""
    qat = prepared(equalized(model, spec)[0], spec)
    distilled(qat, model, "values", spec)
    return qat.placement


def equalized(model: keras.Model, spec: Any) -> tuple[keras.Model, list[TuneReport]]:
    """The float model, equalized where the spec asks for it, and what that changed."""
    if EQUALIZE not in spec.quantization.tune:
        return model, []
    even, report = equalize(model, rules=_rules(spec), relu6=spec.quantization.relu6)
    return even, [report]


def quantize_only(
    model: keras.Model, qat: QuantizedModel, criterion: Criterion, data: Any, spec: Any, results: Results
) -> None:
    """Calibrates and tunes ``qat``, which is ``equalized`` and ``prepared`` from ``model``.

    Leaves the rows of what ReLU6, plain calibration and the tuned model score.
    """
    section = spec.quantization
    converted = relu6_model(model, rules=_rules(spec), relu6=section.relu6)
    criterion.compile(converted)
    add_row(stages.RELU6, converted, criterion, data, results)
    plain = qat
    if EQUALIZE in section.tune:
        plain = prepared(model, spec)
        criterion.compile(plain)
    _calibrate(plain, data, spec)
    add_row(stages.PTQ, plain, criterion, data, results)
    if section.tune:
        if plain is not qat:
            _calibrate(qat, data, spec)
        _tune(qat, data, spec)
        add_row(f"{stages.TUNED} {', '.join(section.tune)}", qat, criterion, data, results)


def distilled(qat: QuantizedModel, teacher: keras.Model, outputs: str, spec: Any) -> None:
    """Has the training of ``qat`` learn from the float model, whose outputs are that, where the spec asks for it."""
    section = spec.training.distillation
    if section is not None:
        distill(qat, teacher, outputs=outputs, **section.model_dump())


def quantized_as_asked(model: keras.Model, data: Any, spec: Any) -> QuantizedModel:
    """What `tfqat quantize` makes of a float model: equalized, prepared, calibrated and tuned; nothing is noted."""
    qat = prepared(equalized(model, spec)[0], spec)
    _calibrate(qat, data, spec)
    _tune(qat, data, spec)
    return qat


def told(results: Results) -> None:
    """Prints the stage table, and writes the summary page."""
    stages.print_stages(stages.read_stages(results.stages))
    print(f"Summary: {write_summary(results)}")


def add_row(
    name: str, model: keras.Model, criterion: Criterion, data: Any, results: Results, file_size: int | None = None
) -> None:
    """Measures the compiled ``model`` on the validation images and notes it as a row of the stage table."""
    score = criterion.evaluate(model, data.validation)[criterion.figure]
    stages.add_stages(results.stages, [stages.Stage(name, "Keras", score, file_size, criterion.figure)])


def _tune(qat: QuantizedModel, data: Any, spec: Any) -> None:
    methods = [name for name in spec.quantization.tune if name != EQUALIZE]
    if methods:
        for report in tune(qat, methods, data.calibration):
            print(report)
        _calibrate(qat, data, spec)  # what was moved gives other values


def _calibrate(qat: QuantizedModel, data: Any, spec: Any) -> None:
    how = spec.quantization.calibration
    print(calibrate(qat, data.calibration, method=how.method, batches=how.batches, percentile=how.percentile))


def _rules(spec: Any) -> list[dict[str, Any]]:
    return [rule.model_dump(exclude_none=True) for rule in spec.quantization.rules]
