"""The `.h5` files of Keras 2 (layout: Keras 2, ``saving/legacy/hdf5_format``)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

import h5py
import numpy as np

from tfqat.errors import TfqatError
from tfqat.models.hdf5 import SUFFIXES, array_of, item_of, open_hdf5
from tfqat.models.keras2.model import Keras2Model, Weights, made, own_name, parsed, text_of


def read_hdf5(path: Path) -> Keras2Model:
    """The model in an `.h5` file of Keras 2.

    Raises:
        TfqatError: a broken file, one without a model, a subclassed model.
    """
    with open_hdf5(path, str(path)) as file:
        if "model_config" not in file.attrs:
            raise TfqatError(
                f"{path} holds no model config: it is damaged, or has weights only. Save the whole model: "
                "model.save('model.h5')."
            )
        config = parsed(text_of(file.attrs["model_config"]), str(path))
        weights = weights_in(file, str(path))
    return made(str(path), config, weights)


def model_config_in(path: Path) -> str | None:
    """The text of the model config in an HDF5 file; None where there is no such file or no config in it."""
    if path.suffix not in SUFFIXES or not path.is_file() or not h5py.is_hdf5(path):
        return None
    try:
        with h5py.File(path, "r") as file:
            return text_of(file.attrs["model_config"]) if "model_config" in file.attrs else None
    except OSError:
        return None


def weights_in(file: h5py.File, source: str) -> dict[tuple[str, ...], Weights]:
    """The weights of each layer in a file of a model, or of its weights alone."""
    group = file.get("model_weights", file)
    return {(layer,): tuple(_weights(group, layer, source)) for layer in _names(group, "layer_names")}


def _weights(group: h5py.Group, layer: str, source: str) -> Iterator[tuple[str, np.ndarray]]:
    own = item_of(group, layer, source)
    for name in _names(own, "weight_names"):
        yield own_name(name), array_of(item_of(own, name, source))


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """The list in an attribute, which Keras parts in several (``layer_names0``, ...) where it is longer than 64 kB."""
    if attribute in group.attrs:
        return [text_of(name) for name in group.attrs[attribute]]
    parts = takewhile(lambda key: key in group.attrs, (f"{attribute}{number}" for number in count()))
    return [text_of(name) for key in parts for name in group.attrs[key]]
