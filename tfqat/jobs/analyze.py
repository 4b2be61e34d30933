"""Analyze: what quantization costs the trained model of a spec, block by block, on its validation images."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tfqat.analysis.analyze import analyze
from tfqat.analysis.files import FILES, write_analysis
from tfqat.analysis.front import Front
from tfqat.analysis.report import Analysis
from tfqat.analysis.tables import analysis_tables
from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.jobs.recommend import SPEC, recommend_spec, wish_of, write_spec
from tfqat.jobs.trained import quantized_model
from tfqat.tasks import task_of
from tfqat.tasks.task import Task
from tfqat.training.checkpoint import has_checkpoint
from tfqat.training.results import Results

FOLDER = "analysis"
# The figure by which mixed precision is chosen.
ACCURACY = "accuracy"


def analyze_spec(
    spec: Any,
    images: int,
    budget: float | None = None,
    output: Path | None = None,
    trust: bool = False,
    wish: tuple[float, int | None] | None = None,
    source: Path | None = None,
) -> Analysis:
    """Analyses the quantization-aware trained model of a spec, prints tables and writes the report.

    Args:
        spec: the spec.
        images: validation images that are looked at, at most.
        budget: seconds after which no other block is begun; None for no limit.
        output: folder of the report; ``<results_dir>/analysis`` where None.
        trust: whether Python code in the trained model's file may run (Lambda layers).
        wish: points of accuracy that mixed precision may lose, and bits that its kernels may have at least, or None;
            None looks for no mixed precision.
        source: the file of the spec, whose comments the recommended one keeps.

    Raises:
        TfqatError: no mixed precision loses so little (the report is written all the same), there is no trained model
            yet, or see :func:`tfqat.analysis.analyze.analyze`.
        OSError: the report cannot be written.
    """
    asked, task = None if wish is None else wish_of(spec, *wish), task_of(spec)
    if asked is not None:
        _check_recommended(task)
    model = quantized_model(spec, trust)
    data = task.held_out(model) if asked is None else task.data(model)
    folder = Path(spec.results_dir) / FOLDER if output is None else output
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be is found now, and not after the work
    with batches_explained():
        begun = time.monotonic()
        found = analyze(model, data.validation, images, budget if asked is None or budget is None else budget / 2)
        if asked is not None:
            left = None if budget is None else max(budget - (time.monotonic() - begun), 1e-3)
            front = recommend_spec(spec, data, asked, images, left, trust)
            found = replace(found, front=_with_trained(front, found, spec))
    write_analysis(found, folder)
    Console().print(analysis_tables(found))
    print(f"Written to {' and '.join(str(folder / name) for name in FILES)}")
    if found.front is not None:
        _write_spec(spec, source, found.front, folder)
    return found


def _check_recommended(task: Task) -> None:
    if task.figure != ACCURACY:
        raise TfqatError(
            f"--recommend chooses mixed precision by accuracy, while this spec's models are judged by {task.figure}. "
            "Leave it out: the tables say which blocks lose most, and quantization_config.rules keeps them float."
        )


def _with_trained(front: Front, found: Analysis, spec: Any) -> Front:
    """With a note of what the trained model itself does, which no rule was measured on."""
    accuracy = found.forms["quantized"].accuracy
    if accuracy is None or not has_checkpoint(Results(Path(spec.results_dir)), "qat"):
        return front
    drop = 100 * (front.float_accuracy - accuracy)
    note = (
        "Mixed precision was measured without training. The model trained quantized, all on integers, is "
        f"{abs(drop):.2f} points {'above' if drop < 0 else 'below'} float"
    )
    enough = drop <= front.max_drop
    note += ": within the bound as it is." if enough else "; training with the new spec begins with its float model."
    return replace(front, notes=(*front.notes, note))


def _write_spec(spec: Any, source: Path | None, front: Front, folder: Path) -> None:
    path = folder / SPEC
    if front.chosen is None:
        path.unlink(missing_ok=True)  # of an earlier search
        raise TfqatError(
            f"{front.sentence} Allow more (--max-drop), train (`tfqat train`), or tune "
            "(quantization_config.tune: [equalize, adaround, bias_correction])."
        )
    write_spec(spec, source, front, folder)
    print(
        f"Recommended spec: {path}, with {len(front.rules)} new rules; `tfqat quantize --spec {path}` makes its model."
    )
