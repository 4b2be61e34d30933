"""Inference: what a model says of image files, as JSON, CSV and, on request, drawn images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from tfqat import data as datasets
from tfqat.core.files import folder_on_success, write_text
from tfqat.data.image_files import Prepared, check_decodable, listed, pixels, read
from tfqat.jobs.opened import Files, open_model
from tfqat.tasks import task_of
from tfqat.tasks.task import Task
from tfqat.verification.model_file import ModelFile

FOLDER, JSON, CSV, IMAGES = "inference", "result.json", "result.csv", "images"
BATCH = 8
# Of drawn JPEGs; other formats know none.
QUALITY = 95


def inference(
    spec: Any,
    images: Path,
    output: Path | None = None,
    model: Path | None = None,
    cache: Path | None = None,
    precisions: Path | None = None,
    draw: bool = False,
    threshold: float | None = None,
    trust: bool = False,
) -> Path:
    """Runs a model on image files and writes ``result.json`` and ``result.csv``.

    A line of the CSV, which has no heading, is ``path, label, confidence``, and of boxes ``xmin, ymin, xmax, ymax`` in
    the image's pixels behind it.

    Args:
        spec: the spec.
        images: an image, or a folder of images, which may lie in folders of it.
        output: the folder to write into; ``<results_dir>/inference`` where None.
        model, cache, precisions, trust: see :class:`tfqat.jobs.opened.Files`.
        draw: whether to write the images, too, with what was found drawn on them, into ``images``.
        threshold: confidence below which nothing is told; the task's own where None.

    Returns:
        The folder.

    Raises:
        TfqatError: no image, images that cannot be decoded, data whose kind knows no image files, a model that does not
            fit; nothing is written then.
        OSError: a file cannot be read or written.
    """
    files, prepare = listed(images), datasets.preparer(spec.dataset)
    check_decodable(files)
    task, shape = task_of(spec), datasets.input_shape(spec.dataset)
    opened = open_model(spec, Files(model, cache, precisions, trust), shape, task)
    names = datasets.class_names(spec.dataset)
    folder = Path(spec.results_dir) / FOLDER if output is None else output
    with folder_on_success(folder) as temporary:
        found = []
        for start in _tracked(range(0, len(files), BATCH)):
            part = files[start : start + BATCH]
            given = [read(file, prepare) for file in part]
            findings = _predicted(opened, task, given, names, threshold)
            found += [(file, one) for file, one in zip(part, findings, strict=True)]
            if draw:
                _draw(task, part, findings, names, images, temporary / IMAGES)
        _write(found, opened, temporary)
    count = f"{len(files)} image{'s' * (len(files) > 1)}"
    print(f"{opened.name}, run by {opened.run_by}, on {count}; written to {folder}: {CSV}, {JSON}.")
    return folder


def _tracked(starts: Sequence[int]) -> Iterable[int]:
    console = Console(stderr=True)
    return track(starts, "Images", console=console, transient=True, disable=not console.is_terminal)


def _predicted(
    opened: ModelFile, task: Task, given: Sequence[Prepared], names: Sequence[str], threshold: float | None
) -> Sequence[Any]:
    outputs = opened.predict(np.stack([np.asarray(one.image) for one in given]))
    return task.findings(opened.name, outputs, given, names, threshold)


def _draw(
    task: Task, files: Sequence[Path], findings: Sequence[Any], names: Sequence[str], root: Path, folder: Path
) -> None:
    for file, finding in zip(files, findings, strict=True):
        place = folder / (file.relative_to(root) if root.is_dir() else file.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as original:
            written_as = original.format  # whatever the file's name ends in
        image = Image.fromarray(pixels(file).numpy())  # not Pillow's own reading, which has no 16 bits
        task.drawn(image, finding, names).save(place, written_as, quality=QUALITY)


def _write(found: Sequence[tuple[Path, Any]], opened: ModelFile, folder: Path) -> None:
    document = {
        "model": opened.name,
        "run_by": opened.run_by,
        "images": [{"path": str(file), **finding.to_dict()} for file, finding in found],
    }
    write_text(folder / JSON, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_rows(found))
    write_text(folder / CSV, text.getvalue())


def _rows(found: Sequence[tuple[Path, Any]]) -> Iterator[tuple[Any, ...]]:
    return ((str(file), *row) for file, finding in found for row in finding.rows())
