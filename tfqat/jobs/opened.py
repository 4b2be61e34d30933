"""Opened: the trained model of a spec, or any file that was made of it, as a function from images to outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfqat.jobs.trained import register_layers, trained_path
from tfqat.models.load import load_model
from tfqat.tasks.task import Task
from tfqat.verification.model_file import (
    ImageShape,
    ModelFile,
    ModelFileError,
    check_count,
    check_images,
    open_onnx,
    open_tflite,
)


@dataclass(frozen=True)
class Files:
    """What is run: a model's file, and the TensorRT cache and layer precisions that go with it.

    Attributes:
        model: a .keras, .h5, .onnx or .tflite file; the trained model where None.
        cache: the TensorRT cache that belongs to a float ONNX.
        precisions: the layers that stay float beside the cache (``layer_precisions.txt``).
        trust: whether Python code in a model file may run (Lambda layers).
    """

    model: Path | None = None
    cache: Path | None = None
    precisions: Path | None = None
    trust: bool = False


def open_model(spec: Any, files: Files, shape: ImageShape, task: Task) -> ModelFile:
    """Opens ``files`` for images ``(height, width, channels)`` of ``shape``.

    Raises:
        TfqatError: there is no trained model yet; a file is broken, of another kind, takes other images, or has not
            as many outputs as the task's models.
        OSError: a file cannot be opened.
    """
    path = trained_path(spec) if files.model is None else files.model
    _check(path, files)
    register_layers(spec.model)
    if _is_saved_model(path):
        return _open_keras(path, files, shape, task.outputs)
    own = task.open_own(path, files.cache, files.precisions, shape)
    return own or _OPENERS[path.suffix.lower()](path, files, shape, task.outputs)


def _check(path: Path, files: Files) -> None:
    suffix = path.suffix.lower()
    if _is_saved_model(path) and not (files.cache or files.precisions):
        return
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


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()


def _open_keras(path: Path, files: Files, shape: ImageShape, outputs: int) -> ModelFile:
    model = load_model(path, trust=files.trust)
    check_count(path.name, len(model.inputs), len(model.outputs), outputs)
    check_images(path.name, tuple(model.inputs[0].shape), shape)

    def predict(images: np.ndarray) -> list[np.ndarray]:
        given = keras.tree.flatten(model(images, training=False))
        return [np.asarray(keras.ops.convert_to_numpy(array)) for array in given]

    return ModelFile(path.name, "Keras", predict)


def _open_onnx(path: Path, files: Files, shape: ImageShape, outputs: int) -> ModelFile:
    return open_onnx(path, shape, files.cache, files.precisions, outputs)


def _open_tflite(path: Path, files: Files, shape: ImageShape, outputs: int) -> ModelFile:
    return open_tflite(path, shape, outputs)


_OPENERS: Mapping[str, Callable[[Path, Files, ImageShape, int], ModelFile]] = {
    **dict.fromkeys((".keras", ".h5", ".hdf5"), _open_keras),
    ".onnx": _open_onnx,
    ".tflite": _open_tflite,
}
