"""Load: a model file of any kind, or a model of tf_keras, as a Keras 3 model."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import keras

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.graph.own_arguments import own_arguments_do
from tfqat.models.declared import check_declared
from tfqat.models.file_kind import FileKind, file_kind, keras_version
from tfqat.models.hdf5 import SUFFIXES, open_hdf5, values_stored
from tfqat.models.keras2.archive import read_archive
from tfqat.models.keras2.build import keras3_model
from tfqat.models.keras2.hdf5 import read_hdf5, weights_in
from tfqat.models.keras2.model import Keras2Model, is_live, parsed, read_live, text_of
from tfqat.models.keras2.saved_model import read_saved_model
from tfqat.models.keras2.weights import set_layers
from tfqat.models.reason import reason
from tfqat.models.safety import check_config
from tfqat.models.tfmot.wrappers import MARKS
from tfqat.models.vocabulary import check_vocabularies
from tfqat.models.weights import load_weights

Architecture: TypeAlias = Any  # a keras.Model, or a function that returns one
_READERS: Mapping[FileKind, Callable[[Path], Keras2Model]] = {
    FileKind.KERAS2_ARCHIVE: read_archive,
    FileKind.KERAS2_HDF5: read_hdf5,
    FileKind.SAVED_MODEL: read_saved_model,
}
# What Keras' reader of .h5 files does not know.
_OPERATIONS = {FileKind.KERAS3_HDF5: " An .h5 file tells layers, no operations on tensors (x[:, 0]): save as .keras."}
_SUFFIXES = {FileKind.KERAS3_ARCHIVE: (".keras",), FileKind.KERAS3_HDF5: SUFFIXES}
# What Keras, h5py and zipfile raise on a file that they cannot read.
_READ_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    OSError,
    AttributeError,
    IndexError,
    NotImplementedError,
    ImportError,
    RuntimeError,
    zipfile.BadZipFile,
)


def load_model(
    path_or_model: Any,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = False,
    architecture: Architecture | None = None,
    trust: bool = False,
) -> keras.Model:
    """The Keras 3 model in a file, or the one that computes what a live tf_keras model does.

    Reads `.keras` and `.h5` files of Keras 3 and of Keras 2 (tf_keras), weights files of both, and SavedModel folders
    of Keras 2 models; told apart by content. A model of Keras 2 is read as data: neither tf_keras nor a function of
    the file is run. Works on models of thousands of layers.

    Args:
        path_or_model: the file or folder; a live tf_keras model; a Keras 3 model, which is returned as it is.
        custom_objects: class name -> the user's own Keras 3 layers, as for keras.models.load_model.
        compile: whether to restore optimizer, loss and metrics too; of Keras 3 models only.
        architecture: the model that a weights file belongs to, or a function that builds it; the weights are read into
            it.
        trust: whether Python code in the file (Lambda layers) may run. Say so only of a file whose maker you trust.

    Raises:
        TfqatError: no such file, another kind of file, a damaged one, code in it that is not trusted, a layer that is
            unknown or has no counterpart in Keras 3.
    """
    if isinstance(path_or_model, keras.Model):
        return path_or_model
    objects = dict(custom_objects or {})
    if is_live(path_or_model):
        return _from_keras2(read_live, path_or_model, objects, trust)
    if not isinstance(path_or_model, str | Path):
        raise TfqatError(
            f"Expected the path of a model file, a tf_keras model or a Keras 3 model; received a "
            f"{type(path_or_model).__name__}."
        )
    path = Path(path_or_model)
    kind = file_kind(path)
    _check_wish(path, kind, compile, architecture)
    if kind is FileKind.WEIGHTS:
        return _from_weights(path, architecture)
    if kind in _READERS:
        model = _from_keras2(_READERS[kind], path, objects, trust)
    else:
        model = _from_keras3(path, kind, objects, compile, trust)
    check_vocabularies(model, str(path))
    return model


def _check_wish(path: Path, kind: FileKind, compile: bool, architecture: Architecture | None) -> None:
    if kind is FileKind.WEIGHTS and architecture is None:
        raise TfqatError(
            f"{path} holds weights only, and no model. Give the model that they are of, or a function that builds it: "
            f"tfqat.load_model({path.name!r}, architecture=...), in a spec model_config.architecture or "
            "model_config.python beside a checkpoint named *.weights.h5; or save the whole model (model.save)."
        )
    if kind is not FileKind.WEIGHTS and architecture is not None:
        raise TfqatError(f"{path} is {kind.value} and brings its own model; leave architecture out.")
    if compile and kind in (*_READERS, FileKind.WEIGHTS):
        raise TfqatError(
            f"compile: {path} is {kind.value}; only whole models of Keras 3 bring what they were trained by."
        )


def _from_weights(path: Path, architecture: Any) -> keras.Model:
    model = architecture() if callable(architecture) and not isinstance(architecture, keras.Model) else architecture
    if not isinstance(model, keras.Model):
        raise TfqatError(
            f"architecture: expected a keras.Model or a function of one; received a {type(model).__name__}."
        )
    if not model.built:
        raise TfqatError(f"architecture: {model.name!r} is not built; call it on data or an Input first.")
    with h5py.File(path, "r") as file:
        of_keras2 = "layer_names" in file.attrs or "layer_names0" in file.attrs
    with _explained(f"{path} cannot be read into {model.name!r}"):
        if of_keras2:
            with open_hdf5(path, str(path)) as file:
                set_layers(model, weights_in(file, str(path)), str(path))
            return model
        # Keras looks at the name of the file.
        with _named_for(path, (".weights.h5",)) as named:
            load_weights(model, named)
    return model


def _from_keras2(
    read: Callable[[Any], Keras2Model], path_or_model: Any, objects: Mapping[str, Any], trust: bool
) -> keras.Model:
    source = path_or_model if isinstance(path_or_model, Path) else f"the model {path_or_model.name!r}"
    with _explained(f"{source} is not as Keras 2 writes it, so damaged or of an unknown version"):
        kept = read(path_or_model)
        _check_float(kept)
        with keras.saving.custom_object_scope(dict(objects)):
            check_config(kept.config, kept.source, objects, trust)
            return keras3_model(kept)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors that Keras, h5py and zipfile raise on a file, as one that says ``what`` and their reason."""
    try:
        yield
    except TfqatError:
        raise
    except _READ_ERRORS as error:
        raise TfqatError(f"{what}: {reason(error)}") from error


def _check_float(kept: Keras2Model) -> None:
    text = json.dumps(kept.config)
    if any(f'"{mark}"' in text or f'>{mark}"' in text for mark in MARKS):
        raise TfqatError(
            f"{kept.source} was quantized by TensorFlow Model Optimization (TFMOT). Read an .h5 file of it, or the "
            "live model, by tfqat.from_tfmot, or name the .h5 as model_config.checkpoint with "
            "training_config.enable_qat: true. Another file of it: load it in tf_keras within "
            "tfmot.quantization.keras.quantize_scope(), and save the model again as .h5: model.save('model.h5')."
        )


def _from_keras3(path: Path, kind: FileKind, objects: Mapping[str, Any], compile: bool, trust: bool) -> keras.Model:
    config, stored = _KEPT[kind](path)
    # What the model was trained by is not made unasked, so that it may be of the user's own.
    used = config if compile else _without_training(config)
    check_config(used, str(path), objects, trust)
    try:
        # Deserialization is recursive where a layer's input is the layer before it, so a chain needs room.
        with room_for(), own_arguments_do():
            check_declared(lambda: _without_weights(config, objects, trust), stored, str(path))
            with _named_for(path, _SUFFIXES[kind]) as named:
                return keras.models.load_model(
                    named, custom_objects=dict(objects), compile=compile, safe_mode=not trust
                )
    except TfqatError:
        raise
    except _READ_ERRORS as error:
        what = f"{path} cannot be read as a Keras model: {reason(error)}"
        raise TfqatError(f"{what}{_newer(path)}{_OPERATIONS.get(kind, '')}") from error


@contextmanager
def _named_for(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The file under a name with one of the suffixes, by which Keras tells its kinds of files apart."""
    if path.name.endswith(suffixes):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"{path.stem}{suffixes[0]}"
        link.symlink_to(path.resolve())
        yield link


def _without_training(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "compile_config"}


def _without_weights(config: Mapping[str, Any], objects: Mapping[str, Any], trust: bool) -> keras.Model:
    whole = _without_training(config)
    if "module" not in whole:  # as in an .h5 file
        stock = "Sequential" if whole["class_name"] == "Sequential" else "Model"
        whole = {**whole, "module": "keras", "class_name": stock, "registered_name": None}
    with keras.saving.custom_object_scope(dict(objects)):
        return keras.saving.deserialize_keras_object(whole, custom_objects=dict(objects), safe_mode=not trust)


def _of_archive(path: Path) -> tuple[Mapping[str, Any], int]:
    """The config, and how many numbers there are beside it."""
    with zipfile.ZipFile(path) as archive:
        config = parsed(archive.read("config.json"), str(path))
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with open_hdf5(weights, str(path)) as file:
        return config, values_stored(file)


def _of_hdf5(path: Path) -> tuple[Mapping[str, Any], int]:
    with open_hdf5(path, str(path)) as file:
        return parsed(text_of(file.attrs["model_config"]), str(path)), values_stored(file)


_KEPT = {FileKind.KERAS3_ARCHIVE: _of_archive, FileKind.KERAS3_HDF5: _of_hdf5}


def _newer(path: Path) -> str:
    """What to do where a newer Keras has saved the file."""
    version = keras_version(path)
    if version is None or _numbers(version) <= _numbers(keras.__version__):
        return ""
    return f" It was saved by Keras {version}, and this is {keras.__version__}: install that version or a newer one."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
