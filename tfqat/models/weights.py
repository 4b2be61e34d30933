"""Weights: the variables in a file, read into a model of the same architecture."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import keras

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for

# Keras does not save the state of random layers.
_NOT_SAVED = "seed_generator_state"
_SHOWN = 5


def load_weights(model: keras.Model, path: Path) -> None:
    """Reads a `.keras` or `.weights.h5` file into ``model``, and into its optimizer where both have its state.

    Only values are read: the file's layers need no registration, and no part of ``model`` is replaced. The shapes are
    compared first, since Keras passes over what the file has and the model has not.

    Raises:
        TfqatError: the file is of another architecture.
        OSError, ValueError, KeyError, zipfile.BadZipFile: the file is damaged.
    """
    own = Counter(tuple(variable.shape) for variable in model.variables if variable.name != _NOT_SAVED)
    saved = _saved_shapes(path)
    if saved != own:
        raise TfqatError(
            f"{path} is of another architecture: it has {saved.total()} variables, the model {model.name!r} has "
            f"{own.total()}; shapes only in the file: {_first(saved - own)}, only in the model: {_first(own - saved)}"
            f"{_of_layers(model, own - saved)}."
        )
    with room_for():
        model.load_weights(path)


def _saved_shapes(path: Path) -> Counter[tuple[int, ...]]:
    """How many of the model's variables in the file have which shape; the optimizer's do not count."""
    shapes: Counter[tuple[int, ...]] = Counter()

    def count(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and "/vars/" in f"/{name}" and not name.startswith("optimizer/"):
            shapes[tuple(item.shape)] += 1

    with h5py.File(_weights_part(path), "r") as file:
        file.visititems(count)
    return shapes


def _weights_part(path: Path) -> Path | io.BytesIO:
    if path.suffix != ".keras":
        return path
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read("model.weights.h5"))


def _of_layers(model: keras.Model, shapes: Counter[tuple[int, ...]]) -> str:
    """The first variables of the model with such shapes, by name."""
    found = [variable.path for variable in model.variables if tuple(variable.shape) in shapes]
    return f" (of {', '.join(found[:_SHOWN])})" if found else ""


def _first(shapes: Counter[tuple[int, ...]]) -> str:
    listed = sorted(shapes.elements())
    return ", ".join(map(str, listed[:_SHOWN])) + (" and more" if len(listed) > _SHOWN else "") or "none"
