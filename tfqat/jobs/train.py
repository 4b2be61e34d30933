"""Train: one command from a spec to a quantization-aware trained model: float phase, calibration, QAT phase."""

from __future__ import annotations

from typing import Any

import keras

from tfqat.core.files import write_text
from tfqat.data.python import batches_explained
from tfqat.jobs import tfmot_spec
from tfqat.jobs.build import build_model
from tfqat.jobs.phases import (
    QUANTIZE,
    add_row,
    distilled,
    equalized,
    float_phase,
    noted,
    planned,
    prepared,
    quantize_only,
    told,
)
from tfqat.models.tfmot.model import Tfmot
from tfqat.rewrite.finalize import finalize
from tfqat.rewrite.model import QuantizedModel
from tfqat.tasks import task_of
from tfqat.training import stages
from tfqat.training.checkpoint import has_checkpoint, save_checkpoint, save_model
from tfqat.training.criterion import Criterion
from tfqat.training.freezing import freeze_layers
from tfqat.training.journal import read_statuses
from tfqat.training.loop import check_tensorboard, compile_phase, train_phase
from tfqat.training.results import Results, open_results
from tfqat.training.seeds import make_deterministic
from tfqat.tuning.batch_norm import NAME as BATCH_NORM
from tfqat.tuning.tune import tune


def train(spec: Any, restart: bool = False, trust: bool = False) -> None:
    """Trains what ``spec`` describes and fills its results folder; prints the stage table.

    A run that was broken off goes on from its last epoch, with the same result on CPU as if it had not been. Over
    a finished folder only the table is printed; what `tfqat quantize` left is trained on. ``restart`` removes the
    earlier run's files first; ``trust`` lets Python code in a checkpoint run (Lambda layers).

    Raises:
        TfqatError: bad data, model or results folder, or training that cannot go on; status.jsonl then ends in FAILURE.
    """
    check_tensorboard(spec)
    results = open_results(spec, restart)
    if _finished(results, spec):
        print(f"{results.folder} holds this spec's finished run; nothing was trained. `tfqat train --restart` would.")
        told(results)
        return
    _forget_untrained(results)
    with noted(results), batches_explained():
        make_deterministic(spec.random_seed)
        model, tfmot = build_model(spec, trust), tfmot_spec.tfmot_of(spec)
        if spec.training.enable_qat:
            # Also before the float phase: a model or rule that cannot be prepared is found now and not hours later.
            plan = tfmot_spec.planned(tfmot, spec) if tfmot else planned(model, spec)
            write_text(results.placement, f"{plan}\n")
        task = task_of(spec)
        data = task.data(model)
        criterion = task.criterion(model, data)
        float_phase(model, criterion, data, spec, results)
        if spec.training.enable_qat:
            _qat_phase(model, tfmot, criterion, data, spec, results)
    told(results)


def _finished(results: Results, spec: Any) -> bool:
    last = results.qat_model if spec.training.enable_qat else results.float_model
    lines = read_statuses(results)
    return bool(lines) and lines[-1]["status"] == "SUCCESS" and lines[-1]["phase"] is None and last.exists()


def _forget_untrained(results: Results) -> None:
    """Removes the model that `tfqat quantize` left, and the rows of the files that were made of it."""
    lines = read_statuses(results)
    if lines and lines[-1]["phase"] == QUANTIZE:
        results.qat_model.unlink(missing_ok=True)
        results.stages.unlink(missing_ok=True)


def _qat_phase(
    model: keras.Model, tfmot: Tfmot | None, criterion: Criterion, data: Any, spec: Any, results: Results
) -> None:
    """Leaves `qat.keras` and the rows of the quantized forms."""
    if tfmot:
        even, qat = model, tfmot_spec.imported(tfmot, spec, data.calibration)
        freeze_layers(qat, spec.training)  # TFMOT's model has layers of its own
    else:
        even, reports = equalized(model, spec)
        for report in reports:
            print(report)
        qat = prepared(even, spec)
    compile_phase(qat, criterion, data, spec, "qat")
    if not has_checkpoint(results, "qat"):
        if tfmot:
            _compare_imported(tfmot, qat, criterion, data, results)
        else:
            quantize_only(model, qat, criterion, data, spec, results)
        save_checkpoint(qat, results, "qat", 0)
    # The equalized model gives the float model's outputs, and inside it the channels have the scales of qat's.
    distilled(qat, even, criterion.outputs, spec)
    train_phase(qat, criterion, data, spec, results, "qat")
    if BATCH_NORM in spec.quantization.tune and spec.training.num_epochs:
        print(*tune(qat, [BATCH_NORM], data.calibration), sep="\n")  # training has moved what it was estimated for
    criterion.compile(qat)
    save_model(qat, results.qat_model)
    add_row(stages.QAT, qat, criterion, data, results, results.qat_model.stat().st_size)
    final = finalize(qat)
    criterion.compile(final)
    add_row(stages.FINALIZED, final, criterion, data, results)


def _compare_imported(tfmot: Tfmot, qat: QuantizedModel, criterion: Criterion, data: Any, results: Results) -> None:
    """What the model scores as TFMOT has it and as the target has it."""
    write_text(results.placement, f"{qat.placement}\n")  # with what became of TFMOT's ranges
    own = tfmot_spec.as_tfmot_has_it(tfmot)
    criterion.compile(own)
    add_row(stages.TFMOT, own, criterion, data, results)
    add_row(stages.IMPORTED, qat, criterion, data, results)
