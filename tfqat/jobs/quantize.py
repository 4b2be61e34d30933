"""Quantize: the float model calibrated and tuned, without training (PTQ); the result is exported as a trained one."""

from __future__ import annotations

from typing import Any

from tfqat.core.files import write_text
from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.jobs import tfmot_spec
from tfqat.jobs.build import build_model
from tfqat.jobs.phases import QUANTIZE, equalized, float_phase, noted, prepared, quantize_only, told
from tfqat.tasks import task_of
from tfqat.training.checkpoint import has_checkpoint, save_model
from tfqat.training.journal import read_statuses
from tfqat.training.results import Results, open_results
from tfqat.training.seeds import make_deterministic


def quantize(spec: Any, restart: bool = False, trust: bool = False) -> None:
    """Leaves `qat.keras`, calibrated and tuned as ``spec`` asks, and prints the stage table; trains nothing quantized.

    The float model is the one in the results folder, else what ``spec`` describes, whose ``float_epochs`` are trained
    first. `tfqat train` may go on from there. ``restart`` removes the earlier run's files first; ``trust`` lets Python
    code in a checkpoint run (Lambda layers).

    Raises:
        TfqatError: the spec does not quantize, the folder holds a model that was trained quantized, or TFMOT's; bad
            data, model or results folder.
    """
    if not spec.training.enable_qat:
        raise TfqatError("training_config.enable_qat is false, so nothing is to be quantized; set it to true.")
    results = open_results(spec, restart)
    done = _quantized_before(results)
    _check_untrained(results, done)
    if done:
        print(f"{results.folder} holds what this spec quantizes; nothing was done. `tfqat quantize --restart` would.")
    else:
        with noted(results, QUANTIZE), batches_explained():
            _quantize(spec, results, trust)
    told(results)


def _quantized_before(results: Results) -> bool:
    lines = read_statuses(results)
    return (
        bool(lines)
        and (lines[-1]["status"], lines[-1]["phase"]) == ("SUCCESS", QUANTIZE)
        and results.qat_model.exists()
    )


def _check_untrained(results: Results, done: bool) -> None:
    if has_checkpoint(results, "qat") or (results.qat_model.exists() and not done):
        raise TfqatError(
            f"{results.folder} holds a model that was trained quantized, which would be lost. Give this run another "
            "results_dir (model_config.checkpoint may name its float.keras), or run `tfqat quantize --restart`."
        )


def _quantize(spec: Any, results: Results, trust: bool) -> None:
    make_deterministic(spec.random_seed)
    if tfmot_spec.tfmot_of(spec):
        raise TfqatError(
            f"{spec.model.checkpoint} was quantized by TFMOT already; `tfqat train` with training_config.num_epochs=0 "
            "takes its ranges over."
        )
    model = build_model(spec, trust)
    # Also before the float phase: what cannot be prepared is found now and not hours later.
    write_text(results.placement, f"{prepared(equalized(model, spec)[0], spec).placement}\n")
    task = task_of(spec)
    data = task.data(model)
    criterion = task.criterion(model, data)
    float_phase(model, criterion, data, spec, results)
    even, reports = equalized(model, spec)
    for report in reports:
        print(report)
    quantized = prepared(even, spec)
    criterion.compile(quantized)
    quantize_only(model, quantized, criterion, data, spec, results)
    save_model(quantized, results.qat_model)
