"""Evaluate: a trained model, or any file that was made of one, measured on its spec's validation images."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfqat.core.files import write_text
from tfqat.data.pipeline import HeldOut
from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.jobs.opened import Files, open_model
from tfqat.tasks import task_of
from tfqat.tasks.task import Result, Task
from tfqat.verification.model_file import ModelFile

FOLDER = "evaluation"
STDOUT = "-"


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        name: the file's.
        run_by: the program that ran it.
        figure: name of what the score is.
        score: the task's figure, 0 to 1.
        result: all that was measured.
    """

    name: str
    run_by: str
    figure: str
    score: float
    result: Result

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"model": self.name, "run_by": self.run_by, **self.result.to_dict()}


def evaluate(
    spec: Any,
    model: Path | None = None,
    cache: Path | None = None,
    precisions: Path | None = None,
    json_path: str | None = None,
    trust: bool = False,
) -> Evaluation:
    """Runs a file on the spec's validation images, prints tables, and writes the numbers as JSON.

    Args:
        spec: the spec.
        model, cache, precisions, trust: see :class:`tfqat.jobs.opened.Files`.
        json_path: where the numbers go as JSON; ``-`` is standard output, and then nothing else is printed there;
            where None, a file in ``<results_dir>/evaluation``.

    Raises:
        TfqatError: there is no trained model yet; a file is broken, of another kind, or does not fit the data.
        OSError: a file cannot be opened or written.
    """
    with redirect_stdout(sys.stderr) if json_path == STDOUT else nullcontext():
        task = task_of(spec)
        data = task.held_out()
        opened = open_model(spec, Files(model, cache, precisions, trust), data.input_shape, task)
        with batches_explained():
            found = _measured(opened, task, data)
    _report(found, opened, json_path, Path(spec.results_dir) / FOLDER)
    return found


def _measured(opened: ModelFile, task: Task, data: HeldOut) -> Evaluation:
    meter, empty = task.meter(data), True
    for images, targets in data.validation:
        outputs = opened.predict(np.asarray(images))
        task.check_arrays(opened.name, outputs, targets, data)
        meter.add(outputs, targets)
        empty = False
    if empty:
        raise TfqatError("The validation data has no image.")
    return Evaluation(opened.name, opened.run_by, task.figure, meter.figure(), meter.result())


def _report(found: Evaluation, opened: ModelFile, json_path: str | None, folder: Path) -> None:
    text = json.dumps(found.to_dict(), indent=1) + "\n"
    if json_path == STDOUT:
        sys.stdout.write(text)
        return
    Console().print(found.result.tables(found.name, found.run_by))
    if opened.note:
        print(opened.note)
    name = found.name.replace(" + ", "+")
    print(f"Written to {write_text(json_path or folder / f'{name}.json', text)}")
