"""Train: one command from a spec to a quantization-aware trained model: float phase, calibration, QAT phase."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from tfqat import data as datasets
from tfqat.calibration.calibrate import calibrate
from tfqat.core.files import write_text
from tfqat.data.python import labels_explained
from tfqat.jobs import tfmot_spec
from tfqat.models.tfmot.model import Tfmot
from tfqat.models.zoo import build_model
from tfqat.rewrite.finalize import finalize
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.prepare import prepare, relu6_model
from tfqat.training import stages
from tfqat.training.checkpoint import has_checkpoint, restore, save_checkpoint, save_model
from tfqat.training.evaluation import compile_model, evaluate_model, loss_for
from tfqat.training.journal import add_status, read_statuses
from tfqat.training.loop import check_tensorboard, compile_phase, train_phase
from tfqat.training.results import Results, open_results
from tfqat.training.seeds import make_deterministic


def train(spec: Any, restart: bool = False, trust: bool = False) -> None:
    """Trains what ``spec`` describes and fills its results folder; prints the stage table.

    A run that was broken off goes on from its last epoch, with the same result on CPU as if it had not been. Over
    a finished folder only the table is printed. ``restart`` removes the earlier run's files first; ``trust`` lets
    Python code in a checkpoint run (Lambda layers).

    Raises:
        TfqatError: bad data, model or results folder, or training that cannot go on; status.jsonl then ends in FAILURE.
    """
    check_tensorboard(spec)
    results = open_results(spec, restart)
    if _finished(results, spec):
        print(f"{results.folder} holds this spec's finished run; nothing was trained. `tfqat train --restart` would.")
        stages.print_stages(stages.read_stages(results.stages))
        return
    with _noted(results), labels_explained():
        make_deterministic(spec.random_seed)
        model, tfmot = build_model(spec, trust), tfmot_spec.tfmot_of(spec)
        if spec.training.enable_qat:
            # Also before the float phase: a model or rule that cannot be prepared is found now and not hours later.
            plan = tfmot_spec.planned(tfmot, spec) if tfmot else _prepared(model, spec).placement
            write_text(results.placement, f"{plan}\n")
        data = datasets.load(spec.dataset, spec.random_seed, model.output_shape[-1])
        loss = loss_for(model, data.validation)
        _float_phase(model, loss, data, spec, results)
        if spec.training.enable_qat:
            _qat_phase(model, tfmot, loss, data, spec, results)
    stages.print_stages(stages.read_stages(results.stages))


def _finished(results: Results, spec: Any) -> bool:
    last = results.qat_model if spec.training.enable_qat else results.float_model
    lines = read_statuses(results)
    return bool(lines) and lines[-1]["status"] == "SUCCESS" and last.exists()


@contextmanager
def _noted(results: Results) -> Iterator[None]:
    """Notes in status.jsonl how the block began and ended, also where it ends by an error or Ctrl-C."""
    again = results.checkpoints.exists()
    add_status(results, "STARTED", "Started again, from the last checkpoint." if again else "Started.")
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            error = sys.exc_info()[1]
            add_status(results, "FAILURE", f"{type(error).__name__}: {error}")
    kpi = {stage.name: stage.accuracy for stage in stages.read_stages(results.stages)}
    add_status(results, "SUCCESS", "Finished.", kpi=kpi)


def _float_phase(model: keras.Model, loss: Any, data: Any, spec: Any, results: Results) -> None:
    """Leaves ``model`` trained, `float.keras` and the float row."""
    if results.float_model.exists():
        restore(model, results.float_model)
    else:
        compile_phase(model, loss, data, spec, "float")
        train_phase(model, data, spec, results, "float")
    compile_model(model, None, loss)
    if not results.float_model.exists():
        save_model(model, results.float_model)
    _add_row(stages.FLOAT, model, data, results, results.float_model.stat().st_size)


def _qat_phase(model: keras.Model, tfmot: Tfmot | None, loss: Any, data: Any, spec: Any, results: Results) -> None:
    """Leaves `qat.keras` and the rows of the quantized forms."""
    qat = tfmot_spec.imported(tfmot, spec, data.calibration) if tfmot else _prepared(model, spec)
    compile_phase(qat, loss, data, spec, "qat")
    begun = has_checkpoint(results, "qat")
    if tfmot and not begun:
        _compare_imported(tfmot, qat, loss, data, results)
    elif not begun:
        _calibrate(model, qat, loss, data, spec, results)
    train_phase(qat, data, spec, results, "qat")
    compile_model(qat, None, loss)
    save_model(qat, results.qat_model)
    _add_row(stages.QAT, qat, data, results, results.qat_model.stat().st_size)
    final = finalize(qat)
    compile_model(final, None, loss)
    _add_row(stages.FINALIZED, final, data, results)


def _prepared(model: keras.Model, spec: Any) -> QuantizedModel:
    section = spec.quantization
    return prepare(
        model,
        target=section.target,
        rules=[rule.model_dump(exclude_none=True) for rule in section.rules],
        relu6=section.relu6,
        ranges=section.ranges,
        decay=section.decay,
        observe_fraction=section.observe_fraction,
        freeze_step=section.freeze_step,
        strict=section.strict,
        activation=section.activation,
    )


def _calibrate(model: keras.Model, qat: QuantizedModel, loss: Any, data: Any, spec: Any, results: Results) -> None:
    """First ranges, and what ReLU6 and plain calibration cost; the QAT phase's first checkpoint."""
    section = spec.quantization
    rules = [rule.model_dump(exclude_none=True) for rule in section.rules]
    converted = relu6_model(model, rules=rules, relu6=section.relu6)
    compile_model(converted, None, loss)
    _add_row(stages.RELU6, converted, data, results)
    how = section.calibration
    print(calibrate(qat, data.calibration, method=how.method, batches=how.batches, percentile=how.percentile))
    _add_row(stages.PTQ, qat, data, results)
    save_checkpoint(qat, results, "qat", 0)


def _compare_imported(tfmot: Tfmot, qat: QuantizedModel, loss: Any, data: Any, results: Results) -> None:
    """What the model scores as TFMOT has it and as the target has it; the QAT phase's first checkpoint."""
    write_text(results.placement, f"{qat.placement}\n")  # with what became of TFMOT's ranges
    own = tfmot_spec.as_tfmot_has_it(tfmot)
    compile_model(own, None, loss)
    _add_row(stages.TFMOT, own, data, results)
    _add_row(stages.IMPORTED, qat, data, results)
    save_checkpoint(qat, results, "qat", 0)


def _add_row(name: str, model: keras.Model, data: Any, results: Results, file_size: int | None = None) -> None:
    accuracy = evaluate_model(model, data.validation).accuracy
    stages.add_stages(results.stages, [stages.Stage(name, "Keras", accuracy, file_size)])
