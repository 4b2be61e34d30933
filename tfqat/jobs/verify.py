"""Verify: the exported files, opened again and compared with the trained model on the same data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.exporters.registry import ALWAYS
from tfqat.jobs.export import export_folder
from tfqat.jobs.trained import quantized_model
from tfqat.rewrite.finalize import finalize
from tfqat.rewrite.model import QuantizedModel
from tfqat.tasks import task_of
from tfqat.tasks.task import Finished
from tfqat.training import stages
from tfqat.training.results import Results
from tfqat.training.summary import write_summary
from tfqat.verification.compare import compare
from tfqat.verification.files import Files, open_files
from tfqat.verification.report import Report
from tfqat.verification.stages import stages_of


class VerificationError(TfqatError):
    """An exported file that is out of tolerance."""


def verify(model: keras.Model, folder: str | os.PathLike[str], dataset: Any | None = None) -> Report:
    """Compares the files that ``export`` wrote into ``folder`` with the prepared model that they were made of.

    Args:
        model: what ``prepare`` or ``finalize`` returned.
        folder: where the files are.
        dataset: batches of inputs or of (inputs, integer labels), such as a tf.data.Dataset; arrays; None for random
            inputs, on which the two parity judges work as well.

    Returns:
        The Report, which prints itself; ``passed`` says whether all is within tolerance.

    Raises:
        TfqatError: files that are missing, cut off or changed, or of another model.
        OSError: a file cannot be opened.
    """
    final, files = finalize(model), open_files(folder)
    _check_target(final, files)
    return compare(model, final, files, dataset)


def verify_spec(spec: Any, cache: Path | None = None, trust: bool = False) -> Report:
    """Verifies the export of a spec on its validation data and adds the rows to the stage table; prints both.

    Args:
        spec: the spec.
        cache: the cache that ``export_spec`` was given, where it was given one.
        trust: whether Python code in the trained model's file may run (Lambda layers).

    Raises:
        VerificationError: a stage is out of tolerance.
        TfqatError: there is nothing to verify yet, or see :func:`verify`.
    """
    model = quantized_model(spec, trust)
    files = _exported(spec, cache)
    _check_target(model, files)
    task = task_of(spec)
    data = task.held_out(model)
    with batches_explained():
        report = compare(model, finalize(model), files, data.validation, measure=task.measure(data))
        finished = task.finished(files.paths, data)
    results = Results(Path(spec.results_dir))
    rows = stages.add_stages(results.stages, [*_stages(report, files), *_finished_stages(finished, files, task.figure)])
    print("\n".join([str(report), *(file.note for file in finished if file.note)]))
    stages.print_stages(rows)
    write_summary(results)
    problems = [*report.problems, *(file.problem for file in finished if file.problem)]
    if problems:
        raise VerificationError(
            f"{len(problems)} checks are out of tolerance: {'; '.join(problems)}. If the model was trained again after "
            "the export, export it again."
        )
    return report


def _check_target(model: QuantizedModel, files: Files) -> None:
    if files.manifest.target != model.placement.target:
        raise TfqatError(
            f"The files were exported for the target {files.manifest.target!r}, the model was prepared for "
            f"{model.placement.target!r}: they are not of this model. Export it."
        )


def _exported(spec: Any, cache: Path | None) -> Files:
    """The files beside ``cache``, or in the spec's own folder."""
    folder = export_folder(spec, cache)
    if not (folder / ALWAYS["manifest"]).exists():
        raise TfqatError(
            f"There is no export in {str(folder)!r}. Run `tfqat export --spec ... --cache` first, or name the place "
            "where it was written: `tfqat verify --spec ... --cache PATH`."
        )
    files = open_files(folder)
    if cache is not None and (not files.has("cache") or files.paths["cache"].name != cache.name):
        has = f"the cache {files.paths['cache'].name!r}" if files.has("cache") else "no cache"
        raise TfqatError(
            f"The export in {str(folder)!r} has {has}, received {cache.name!r}. Name that one, or export again."
        )
    return files


def _finished_stages(finished: Sequence[Finished], files: Files, figure: str) -> list[stages.Stage]:
    return [
        stages.Stage(file.name, file.run_by, file.score, files.paths[file.role].stat().st_size, figure)
        for file in finished
    ]


def _stages(report: Report, files: Files) -> list[stages.Stage]:
    """The rows of the files; none where the data had no labels."""
    ways = {stage.name: stage for stage in stages_of(files)}
    sizes = {name: sum(files.paths[role].stat().st_size for role in way.roles) for name, way in ways.items()}
    return [
        stages.Stage(row.name, ways[row.name].run_by, row.score, sizes[row.name], report.figure)
        for row in report.rows
        if row.score is not None
    ]
