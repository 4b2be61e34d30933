"""FileKind: what a model file is, told by its content and not by its name; others are refused with what they are."""

from __future__ import annotations

import json
import re
import zipfile
from enum import Enum
from pathlib import Path
from typing import Any

import h5py

from tfqat.errors import TfqatError
from tfqat.models.hdf5 import open_hdf5
from tfqat.models.keras2.model import text_of

KINDS = "a .keras, .h5 or .weights.h5 file, or a SavedModel folder of a Keras 2 model"
_CHECKPOINT = (
    "a TensorFlow checkpoint, which holds weights only; load it into its tf_keras model and save that "
    "(model.save('model.h5'))"
)
# Bytes with which a file begins, from an offset on: what it is.
_SIGNATURES = (
    (4, b"TFL3", "a TFLite model, whose weights are in integers or fused already"),
    (0, b"\x80", "a Python pickle (PyTorch's format before 1.6), which would run code when it is read"),
    (0, b"\x08", "a protocol buffer: an ONNX model, or a frozen TensorFlow graph"),
    (0, b"\x0a", "a protocol buffer: a frozen TensorFlow graph or the like"),
    (0, b"\x93NUMPY", "a NumPy array"),
)
_SUFFIXES = {
    ".onnx": "an ONNX model",
    ".tflite": "a TFLite model",
    ".pt": "a PyTorch model",
    ".pth": "a PyTorch model",
    ".pb": "a TensorFlow graph; where it lies in a SavedModel, name the folder",
    ".index": _CHECKPOINT,
    ".ckpt": _CHECKPOINT,
}
# Above this, a member of an archive that shrank more than a hundredfold is no model.
_LARGE, _DENSEST = 2**28, 100


class FileKind(Enum):
    """The kinds that are read."""

    KERAS3_ARCHIVE = "a .keras file of Keras 3"
    KERAS2_ARCHIVE = "a .keras file of tf_keras"
    KERAS3_HDF5 = "an .h5 file of Keras 3"
    KERAS2_HDF5 = "an .h5 file of Keras 2"
    WEIGHTS = "a weights file"
    SAVED_MODEL = "a SavedModel"


def file_kind(path: Path) -> FileKind:
    """What is at ``path``.

    Raises:
        TfqatError: nothing, a damaged file, or one of another kind; says which.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        if path.with_name(f"{path.name}.index").is_file():
            raise TfqatError(f"{path} is {_CHECKPOINT}. Expected {KINDS}.")
        raise TfqatError(f"No model file at {str(path)!r}; expected {KINDS}.")
    if zipfile.is_zipfile(path):
        return _of_archive(path)
    if h5py.is_hdf5(path):
        return _of_hdf5(path)
    raise TfqatError(f"{path} is {_other(path)}. Expected {KINDS}.")


def _of_folder(path: Path) -> FileKind:
    if (path / "saved_model.pb").is_file():
        return FileKind.SAVED_MODEL
    if any(path.glob("*.index")):
        raise TfqatError(f"{path} is a folder with {_CHECKPOINT}. Expected {KINDS}.")
    raise TfqatError(f"{path} is a folder, not a model file, and no SavedModel either (it has no saved_model.pb).")


def _other(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "an empty file"
    if path.suffix == ".keras" or start.startswith(b"PK"):
        return "not a .keras file (no zip archive): it is cut off or of another kind"
    if path.suffix in (".h5", ".hdf5"):
        return "not an HDF5 file: it is cut off or of another kind"
    if path.name == "checkpoint" or path.suffix.startswith(".data-"):
        return _CHECKPOINT
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]
    return next(
        (what for offset, mark, what in _SIGNATURES if start[offset:].startswith(mark)), "no model file of a known kind"
    )


def _of_archive(path: Path) -> FileKind:
    config = _archive_config(path)
    module = str(config.get("module") or "")
    with zipfile.ZipFile(path) as archive:
        version = _keras_version(archive)
    by_tf_keras = '"tf_keras' in json.dumps(config) or (version and int(version.split(".")[0]) < 3)
    return FileKind.KERAS2_ARCHIVE if by_tf_keras or module.startswith("tf_keras") else FileKind.KERAS3_ARCHIVE


def keras_version(path: Path) -> str | None:
    """The version of Keras that saved the file, where it says so."""
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _keras_version(archive)
    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return text_of(file.attrs["keras_version"]) if "keras_version" in file.attrs else None
    return None


def _keras_version(archive: zipfile.ZipFile) -> str | None:
    try:
        version = json.loads(archive.read("metadata.json")).get("keras_version")
    except (KeyError, ValueError, AttributeError):
        return None
    return version if isinstance(version, str) and re.match("[0-9]+([.]|$)", version) else None


def _archive_config(path: Path) -> dict[str, Any]:
    """The config in a `.keras` file, which must be whole and hold no more than a model."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
            broken = archive.testzip()
            names = set(archive.namelist())
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, RecursionError, NotImplementedError) as error:
        if isinstance(error, TfqatError):
            raise
        raise TfqatError(f"{path} is no complete .keras file: {error}. Save the model again.") from error
    if broken or "model.weights.h5" not in names:
        raise TfqatError(f"{path} is no complete .keras file: {broken or 'model.weights.h5'} is damaged or missing.")
    if not isinstance(config, dict):
        raise TfqatError(f"{path} is no complete .keras file: its config is {type(config).__name__}, not a mapping.")
    return config


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    for member in archive.infolist():
        name = member.filename
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
            raise TfqatError(f"{path}: its member {name!r} would be written outside the folder that it is unpacked to.")
        if member.file_size > max(_LARGE, _DENSEST * member.compress_size):
            raise TfqatError(
                f"{path}: its member {name!r} grows from {member.compress_size:,} to {member.file_size:,} bytes, as no "
                "weights do; it was not unpacked."
            )
        if name.endswith("data.pkl"):
            raise TfqatError(f"{path} is a PyTorch model, not one of Keras. Expected {KINDS}.")


def _of_hdf5(path: Path) -> FileKind:
    with open_hdf5(path, str(path)) as file:
        if "model_config" not in file.attrs:
            return FileKind.WEIGHTS
    version = keras_version(path) or ""
    if version.startswith("1."):
        raise TfqatError(f"{path} was saved by Keras {version}; load it in Keras 2 and save it again.")
    return FileKind.KERAS3_HDF5 if version.startswith("3.") else FileKind.KERAS2_HDF5
