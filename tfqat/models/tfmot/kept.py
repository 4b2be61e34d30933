"""Kept: what a TFMOT model was saved to, or the live model, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras

from tfqat.errors import TfqatError
from tfqat.models.hdf5 import SUFFIXES
from tfqat.models.keras2.hdf5 import read_hdf5
from tfqat.models.keras2.model import Keras2Model, is_live, read_live


def kept_tfmot(model_or_path: Any) -> Keras2Model:
    """The model in an `.h5` file of Keras 2, or a live tf_keras model, as plain data.

    Raises:
        TfqatError: no such file, another kind of file or object, a broken file, a subclassed model.
    """
    if isinstance(model_or_path, str | Path):
        _check_kind(Path(model_or_path))
        return read_hdf5(Path(model_or_path))
    if is_live(model_or_path):
        return read_live(model_or_path)
    what = "a Keras 3 model" if isinstance(model_or_path, keras.Model) else f"a {type(model_or_path).__name__}"
    raise TfqatError(
        f"Expected a tf_keras model that tfmot.quantization.keras.quantize_model made, or the path of its .h5 file; "
        f"received {what}. TFMOT knows tf_keras only; a Keras 3 model is prepared by tfqat.prepare."
    )


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
    if path.suffix not in SUFFIXES:
        raise TfqatError(
            f"{path}: expected an .h5 file, received {path.suffix or 'no suffix'!r}. Load the model in tf_keras within "
            "tfmot.quantization.keras.quantize_scope(), and save it again: model.save('model.h5'); or give it as it is."
        )
    if not h5py.is_hdf5(path):
        raise TfqatError(f"{path} is not an HDF5 file: it is cut off or of another kind.")
