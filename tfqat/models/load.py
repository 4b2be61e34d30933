"""Load: a model file of any kind that this version of Keras can be made to read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.models.tfmot.model import is_tfmot
from tfqat.models.tfmot.wrappers import MARKS

HDF5_SUFFIXES = (".h5", ".hdf5")


class _Keras2DepthwiseConv2D:
    """Keras 2 wrote `groups: 1` into the config of DepthwiseConv2D, an argument that Keras 3's layer does not have.

    One group is what a depthwise convolution always computed with, so that leaving the key out changes nothing.
    """

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.layers.DepthwiseConv2D:
        if config.get("groups", 1) != 1:
            raise TfqatError(f"DepthwiseConv2D {config.get('name')!r} has groups {config['groups']}; Keras 3 has none.")
        return keras.layers.DepthwiseConv2D(**{key: value for key, value in config.items() if key != "groups"})


KERAS2_OBJECTS = {"DepthwiseConv2D": _Keras2DepthwiseConv2D}


def load_model(path: str | Path, custom_objects: Mapping[str, Any] | None = None, compile: bool = False) -> keras.Model:
    """The Keras 3 model in ``path``: a `.keras` file, or an `.h5` file of Keras 2 or 3.

    Works on models of thousands of layers. Runs no code that the file carries: Keras' safe mode stays on.

    Args:
        path: the file.
        custom_objects: class name -> the user's own layers, as for keras.models.load_model.
        compile: whether to restore optimizer, loss and metrics too.

    Raises:
        TfqatError: no such file, a SavedModel or another kind of file, a broken file, a Lambda layer, an unknown layer.
    """
    file = Path(path)
    _check_readable(file)
    if is_tfmot(file):
        raise TfqatError(
            f"{file} was quantized by TensorFlow Model Optimization (TFMOT). Read it by tfqat.from_tfmot(path), or "
            "name it as model_config.checkpoint with training_config.enable_qat: true."
        )
    _check_keras3(file)
    objects = {**(KERAS2_OBJECTS if file.suffix in HDF5_SUFFIXES else {}), **(custom_objects or {})}
    try:
        # Deserialization is recursive where a layer's input is the layer before it, so a chain needs room.
        with room_for():
            return keras.models.load_model(file, custom_objects=objects, compile=compile, safe_mode=True)
    except TfqatError:
        raise
    except (ValueError, TypeError, KeyError, OSError, AttributeError, IndexError, zipfile.BadZipFile) as error:
        raise TfqatError(_why_not(file, error)) from error


def _check_readable(file: Path) -> None:
    """Raises TfqatError where the file is none that Keras reads; says what it is."""
    if file.is_dir():
        saved_model = (file / "saved_model.pb").exists()
        what = "a TensorFlow SavedModel, which Keras 3 cannot read" if saved_model else "a folder, not a model file"
        raise TfqatError(
            f"{file} is {what}. Load it in the TensorFlow version that wrote it and save it as .h5 or .keras "
            "(model.save('model.h5'))."
        )
    if not file.is_file():
        raise TfqatError(f"No model file at {str(file)!r}; expected a .keras or .h5 file.")
    if file.suffix == ".keras" and not zipfile.is_zipfile(file):
        raise TfqatError(f"{file} is not a .keras file (no zip archive): it is cut off or of another kind.")
    if file.suffix in HDF5_SUFFIXES and not h5py.is_hdf5(file):
        raise TfqatError(f"{file} is not an HDF5 file: it is cut off or of another kind.")
    if file.suffix not in (".keras", *HDF5_SUFFIXES):
        raise TfqatError(f"{file}: expected a file that ends in .keras, .h5 or .hdf5, received {file.suffix!r}.")
    _check_complete(file)


def _check_complete(file: Path) -> None:
    """A `.keras` file must hold a whole config and weights, an `.h5` file a model and not just weights."""
    if file.suffix in HDF5_SUFFIXES:
        try:
            with h5py.File(file, "r") as hdf5:
                weights_only = "model_config" not in hdf5.attrs
        except OSError as error:
            raise TfqatError(f"{file} cannot be read: {error}. Save the model again.") from error
        if weights_only:
            raise TfqatError(f"{file} holds weights only. Save the whole model (model.save), or name its architecture.")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
            names = set(archive.namelist())
            json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise TfqatError(f"{file} is no complete .keras file: {error}. Save the model again.") from error
    if broken or "model.weights.h5" not in names:
        raise TfqatError(f"{file} is no complete .keras file: {broken or 'model.weights.h5'} is damaged or missing.")


def _check_keras3(file: Path) -> None:
    """Raises TfqatError for a `.keras` file that tf_keras wrote, which Keras 3 cannot read."""
    if file.suffix != ".keras":
        return
    with zipfile.ZipFile(file) as archive:
        config = archive.read("config.json").decode()
    by_tfmot = any(f'"{name}"' in config for name in MARKS)
    if by_tfmot or '"tf_keras' in config:
        whose = "quantized by TensorFlow Model Optimization (TFMOT)" if by_tfmot else "written by tf_keras"
        within = " within tfmot.quantization.keras.quantize_scope()" if by_tfmot else ""
        raise TfqatError(
            f"{file} was {whose}, and Keras 3 cannot read the .keras files of tf_keras. Load the model in "
            f"tf_keras{within}, and save it again as .h5: model.save('model.h5')."
        )


def _why_not(file: Path, error: Exception) -> str:
    text = str(error)
    if "Lambda" in text or "lambda" in text:
        return (
            f"{file} has a Lambda layer: Python code inside the file, which tfqat never runs. Replace it by a Keras "
            "layer or a keras.ops function and save the model again."
        )
    return f"{file} cannot be read as a Keras model: {text}"
