"""Keras2Model: the config and the weights of a Keras 2 model as plain data, read from a file or from a live model.

Neither tf_keras nor TFMOT is imported (importing TFMOT turns tf.keras into tf_keras for the whole process), and no code
of the file is run. Weights are known by their own names, the last part of TensorFlow's: ``quant_conv/kernel_min:0`` is
``kernel_min``. HDF5 layout: Keras 2, ``saving/legacy/hdf5_format``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from tfqat.errors import TfqatError

HDF5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Keras2Model:
    """A model as it was written down.

    Attributes:
        source: the file, or what the live model is, for messages.
        class_name: ``Functional``, ``Model`` or ``Sequential``.
        config: its config; ``config["layers"]`` has one entry a layer.
        weights: layer name -> its weights, (own name, value), in the order of ``layer.weights``.
    """

    source: str
    class_name: str
    config: Mapping[str, Any]
    weights: Mapping[str, tuple[tuple[str, np.ndarray], ...]]


def read_keras2(model_or_path: Any) -> Keras2Model:
    """The model in an `.h5` file of Keras 2, or a live tf_keras model, as plain data.

    Raises:
        TfqatError: no such file, another kind of file or object, a broken file, a subclassed model.
    """
    if isinstance(model_or_path, str | Path):
        return _from_file(Path(model_or_path))
    if is_live(model_or_path):
        return _from_live(model_or_path)
    what = "a Keras 3 model" if isinstance(model_or_path, keras.Model) else f"a {type(model_or_path).__name__}"
    raise TfqatError(
        f"Expected a tf_keras model that tfmot.quantization.keras.quantize_model made, or the path of its .h5 file; "
        f"received {what}. TFMOT knows tf_keras only; a Keras 3 model is prepared by tfqat.prepare."
    )


def is_live(model: Any) -> bool:
    """Whether ``model`` is a model of tf_keras, told by its interface: the package itself need not be there."""
    has_all = all(hasattr(model, name) for name in ("to_json", "layers", "weights", "get_config"))
    return has_all and not isinstance(model, keras.Model) and not isinstance(model, type)


def model_config_in(path: Path) -> str | None:
    """The text of the model config in an HDF5 file; None where there is no such file or no config in it."""
    if path.suffix not in HDF5_SUFFIXES or not path.is_file() or not h5py.is_hdf5(path):
        return None
    try:
        with h5py.File(path, "r") as file:
            return _text(file.attrs["model_config"]) if "model_config" in file.attrs else None
    except OSError:
        return None


def _from_file(path: Path) -> Keras2Model:
    _check_kind(path)
    text = model_config_in(path)
    if text is None:
        raise TfqatError(
            f"{path} holds no model config: it is damaged, or has weights only. Save the whole model: "
            "model.save('model.h5')."
        )
    try:
        with h5py.File(path, "r") as file:
            weights = {name: tuple(found) for name, found in _groups(file)}
    except (OSError, KeyError, ValueError) as error:
        raise TfqatError(f"{path} cannot be read: {error}. It is damaged; save the model again.") from error
    return _made(str(path), _parsed(text, str(path)), weights)


def _from_live(model: Any) -> Keras2Model:
    source = f"the {type(model).__name__} model {model.name!r}"
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise TfqatError(
            f"{source} has no config ({error}). TFMOT makes Sequential and functional models; give what "
            "tfmot.quantization.keras.quantize_model returned."
        ) from error
    weights = {
        layer.name: tuple((_own_name(weight.name), np.asarray(weight.numpy())) for weight in layer.weights)
        for layer in model.layers
    }
    return _made(source, config, weights)


def _made(source: str, config: Mapping[str, Any], weights: Mapping[str, Any]) -> Keras2Model:
    inner = config.get("config")
    if not isinstance(inner, Mapping) or not isinstance(inner.get("layers"), list):
        raise TfqatError(
            f"{source}: expected the config of a Sequential or functional model, received {str(config)[:80]}."
        )
    return Keras2Model(source, str(config.get("class_name")), inner, weights)


def _check_kind(path: Path) -> None:
    if path.is_dir():
        what = "a TensorFlow SavedModel" if (path / "saved_model.pb").exists() else "a folder"
        raise TfqatError(
            f"{path} is {what}; expected the .h5 file of a TFMOT model. Load it in tf_keras "
            "within tfmot.quantization.keras.quantize_scope(), and save it as .h5: model.save('model.h5'); or give the "
            "loaded model itself."
        )
    if not path.is_file():
        raise TfqatError(f"No model file at {str(path)!r}; expected the .h5 file of a TFMOT model.")
    if path.suffix not in HDF5_SUFFIXES:
        raise TfqatError(
            f"{path}: expected an .h5 file, received {path.suffix or 'no suffix'!r}. Load the model in tf_keras within "
            "tfmot.quantization.keras.quantize_scope(), and save it again: model.save('model.h5'); or give it as it is."
        )
    if not h5py.is_hdf5(path):
        raise TfqatError(f"{path} is not an HDF5 file: it is cut off or of another kind.")


def _parsed(text: str, source: str) -> Mapping[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise TfqatError(f"{source}: its model config is no JSON ({error}); the file is damaged.") from error
    if not isinstance(config, Mapping):
        raise TfqatError(f"{source}: its model config is {type(config).__name__}; expected a mapping.")
    return config


def _groups(file: h5py.File) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    group = file.get("model_weights", file)
    for layer in _names(group, "layer_names"):
        yield (
            layer,
            [(_own_name(name), np.asarray(group[layer][name])) for name in _names(group[layer], "weight_names")],
        )


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """The list in an attribute, which Keras parts in several (``layer_names0``, ...) where it is longer than 64 kB."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    parts = takewhile(lambda key: key in group.attrs, (f"{attribute}{number}" for number in count()))
    return [_text(name) for key in parts for name in group.attrs[key]]


def _own_name(name: str) -> str:
    return name.split(":")[0].split("/")[-1]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
