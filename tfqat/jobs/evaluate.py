"""Evaluate: a trained model, or any file that was made of one, measured on its spec's validation images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from tfqat import data as datasets
from tfqat.core.files import write_text
from tfqat.data.pipeline import Data
from tfqat.data.python import labels_explained
from tfqat.data.user_function import user_function
from tfqat.errors import TfqatError
from tfqat.jobs.trained import trained_path
from tfqat.models.load import load_model
from tfqat.verification.metrics import Metrics, metrics_of
from tfqat.verification.metrics_table import metrics_tables
from tfqat.verification.model_file import ModelFile, ModelFileError, check_images, open_onnx, open_tflite

FOLDER = "evaluation"
STDOUT = "-"


@dataclass(frozen=True)
class Files:
    """What is run: a model's file, and the TensorRT cache and layer precisions that go with it."""

    model: Path
    cache: Path | None
    precisions: Path | None
    trust: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What came of it: the file's name, the program that ran it, and the Metrics."""

    name: str
    run_by: str
    metrics: Metrics

    @property
    def accuracy(self) -> float:
        """Share of the images whose highest score is the label's, 0 to 1."""
        return self.metrics.top1

    @property
    def loss(self) -> float:
        """Mean cross entropy."""
        return self.metrics.loss

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"model": self.name, "run_by": self.run_by, **self.metrics.to_dict()}


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
        model: a .keras, .h5, .onnx or .tflite file; the trained model where None.
        cache: the TensorRT cache that belongs to a float ONNX.
        precisions: the layers that stay float beside the cache (``layer_precisions.txt``).
        json_path: where the numbers go as JSON; ``-`` is standard output, and then nothing else is printed there;
            where None, a file in ``<results_dir>/evaluation``.
        trust: whether Python code in a model file may run (Lambda layers).

    Raises:
        TfqatError: there is no trained model yet; a file is broken, of another kind, or does not fit the data.
        OSError: a file cannot be opened or written.
    """
    with redirect_stdout(sys.stderr) if json_path == STDOUT else nullcontext():
        files = _checked(Files(trained_path(spec) if model is None else model, cache, precisions, trust))
        if spec.model.python:
            user_function(spec.model.python, "model_config.python")  # importing its module registers the user's layers
        data = datasets.load(spec.dataset, spec.random_seed, spec.model.num_classes)
        opened = _opener(files.model)(files, data)
        with labels_explained():
            found = Evaluation(opened.name, opened.run_by, _measure(opened, data, spec.model.num_classes))
    _report(found, opened, json_path, Path(spec.results_dir) / FOLDER)
    return found


def _checked(files: Files) -> Files:
    path, suffix = files.model, files.model.suffix.lower()
    if _is_saved_model(path) and not (files.cache or files.precisions):
        return files
    if suffix not in _OPENERS:
        raise ModelFileError(
            f"{path}: expected a file that ends in {', '.join(_OPENERS)}, or a SavedModel folder of Keras 2; received "
            f"{suffix!r}."
        )
    if suffix != ".onnx" and (files.cache or files.precisions):
        raise ModelFileError(f"{path}: a TensorRT cache belongs to a float ONNX; name that as the model.")
    if files.precisions and not files.cache:
        raise ModelFileError(f"{files.precisions}: layer precisions belong to a cache; name that, too.")
    for file in (path, files.cache, files.precisions):
        if file is not None and not file.is_file():
            raise ModelFileError(
                f"{file}: {'a folder, expected a file' if file.is_dir() else 'there is no such file'}."
            )
    return files


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()


def _opener(path: Path) -> Callable[[Files, Data], ModelFile]:
    return _open_keras if _is_saved_model(path) else _OPENERS[path.suffix.lower()]


def _open_keras(files: Files, data: Data) -> ModelFile:
    path, model = files.model, load_model(files.model, trust=files.trust)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelFileError(f"{path.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, not one.")
    check_images(path.name, tuple(model.inputs[0].shape), data.input_shape)

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))

    return ModelFile(path.name, "Keras", predict)


def _open_onnx(files: Files, data: Data) -> ModelFile:
    return open_onnx(files.model, data.input_shape, files.cache, files.precisions)


def _open_tflite(files: Files, data: Data) -> ModelFile:
    return open_tflite(files.model, data.input_shape)


_OPENERS: Mapping[str, Callable[[Files, Data], ModelFile]] = {
    **dict.fromkeys((".keras", ".h5", ".hdf5"), _open_keras),
    ".onnx": _open_onnx,
    ".tflite": _open_tflite,
}


def _measure(opened: ModelFile, data: Data, expected: int | None) -> Metrics:
    names = data.class_names
    parts, labels = [], []
    for images, batch_labels in data.validation:
        scores = opened.predict(np.asarray(images))
        _check_classes(opened.name, scores, expected or len(names), batch_labels)
        parts.append(scores)
        labels.append(np.asarray(batch_labels))
    if not parts:
        raise TfqatError("The validation data has no image.")
    return metrics_of(np.concatenate(parts).astype(np.float32), np.concatenate(labels), names)


def _check_classes(name: str, scores: np.ndarray, expected: int, labels: Any) -> None:
    found = scores.shape[1] if scores.ndim == 2 else None
    top = int(np.max(labels))
    if found is None or (expected and found != expected) or found <= top:
        wanted = expected or f"at least {top + 1}"
        raise ModelFileError(
            f"{name} gives outputs of shape {scores.shape[1:]}, expected ({wanted},): one score for each class of the "
            "data. Name a file of a model that was trained on it."
        )


def _report(found: Evaluation, opened: ModelFile, json_path: str | None, folder: Path) -> None:
    text = json.dumps(found.to_dict(), indent=1) + "\n"
    if json_path == STDOUT:
        sys.stdout.write(text)
        return
    Console().print(metrics_tables(found.name, found.run_by, found.metrics))
    if opened.note:
        print(opened.note)
    name = found.name.replace(" + ", "+")
    print(f"Written to {write_text(json_path or folder / f'{name}.json', text)}")
