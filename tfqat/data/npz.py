"""Npz: arrays of images and labels in one .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqat.data.pipeline import Data, Split, check_labels, seeded
from tfqat.errors import TfqatError

Arrays = tuple[np.ndarray, np.ndarray]
# Type of the images (all floats alike) -> what brings them to [0, 1]. The wider integers have no such number: int64
# images usually still hold 0 to 255.
FACTORS = {"uint8": 1 / 255, "uint16": 1 / 65535, "f": 1.0}


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """Images ``(n, h, w)`` or ``(n, h, w, c)`` and integer labels ``(n,)`` or ``(n, 1)``.

    Images are multiplied by ``scale``. Where it is not given, uint8 and uint16 become [0, 1] and floats stay as they
    are. Without validation keys, ``validation_fraction`` of the images is held out, the same ones for every seed.
    """
    train, validation = _splits(dataset)
    shape = _shape(train[0], dataset)
    for (images, labels), part in ((train, "training"), (validation, "validation")):
        check_labels(labels, num_classes, f"{dataset.path} ({part} labels)")
        if images.shape[1:] != train[0].shape[1:]:
            raise TfqatError(
                f"{dataset.path}: training and validation images must have one shape, received "
                f"{train[0].shape[1:]} and {images.shape[1:]}."
            )
    decode = _decoder(_factor((train[0].dtype, validation[0].dtype), dataset), shape)
    split = Split(train[0], train[1].astype(np.int32), decode)
    held_out = Split(validation[0], validation[1].astype(np.int32), decode)
    return seeded(split, held_out, shape, dataset.batch_size, seed)


def input_shape(dataset: Any) -> tuple[int, int, int]:
    """One image, after resizing."""
    with _open(dataset.path) as file:
        return _shape(_images(file, dataset.path, dataset.x_train), dataset)


def _splits(dataset: Any) -> tuple[Arrays, Arrays]:
    """Training and validation arrays."""
    with _open(dataset.path) as file:
        train = _pair(file, dataset.path, dataset.x_train, dataset.y_train)
        if dataset.x_test is not None:
            return train, _pair(file, dataset.path, dataset.x_test, dataset.y_test)
    return _held_out(train, dataset)


def _held_out(arrays: Arrays, dataset: Any) -> tuple[Arrays, Arrays]:
    """``validation_fraction`` of the images, drawn with a constant seed: accuracies of two seeds stay comparable."""
    images, labels = arrays
    held = round(len(labels) * dataset.validation_fraction)
    if not 0 < held < len(labels):
        raise TfqatError(
            f"{dataset.path}: validation_fraction {dataset.validation_fraction} of {len(labels)} images leaves "
            f"{len(labels) - held} for training and {held} for validation; each needs at least one."
        )
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = np.sort(order[:held]), np.sort(order[held:])
    return (images[train], labels[train]), (images[test], labels[test])


def _open(path: str) -> np.lib.npyio.NpzFile:
    """The opened file. Pickled objects are never read: they can run code."""
    if not Path(path).is_file():
        raise TfqatError(f"dataset_config.path: no file at {path!r} (expected a .npz file of numpy arrays).")
    if not zipfile.is_zipfile(path):
        raise TfqatError(
            f"{path} is not a readable .npz file: it is cut off or of another kind. Write one with numpy.savez."
        )
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TfqatError(f"{path} is not a readable .npz file: {error}. Write one with numpy.savez.") from error


def _pair(file: np.lib.npyio.NpzFile, path: str, x_key: str, y_key: str) -> Arrays:
    """Images (n, h, w, c) and labels (n,), of the integer type in the file."""
    images, labels = _images(file, path, x_key), _array(file, path, y_key)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TfqatError(
            f"{path}: {y_key!r} must hold integer class numbers of shape (n,), received {labels.dtype} of shape "
            f"{labels.shape}. One-hot labels become class numbers with argmax(axis=1)."
        )
    if len(images) != len(labels) or not len(labels):
        raise TfqatError(
            f"{path}: {x_key!r} has {len(images)} images and {y_key!r} has {len(labels)} labels; expected the same "
            "number, at least one."
        )
    return images, labels


def _images(file: np.lib.npyio.NpzFile, path: str, key: str) -> np.ndarray:
    """Images with a channel axis."""
    images = _array(file, path, key)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype.kind not in "uif":
        raise TfqatError(
            f"{path}: {key!r} must hold images of shape (n, height, width) or (n, height, width, channels) as integers "
            f"or floats, received {images.dtype} of shape {images.shape}."
        )
    return images


def _array(file: np.lib.npyio.NpzFile, path: str, key: str) -> np.ndarray:
    if key not in file.files:
        raise TfqatError(
            f"{path} has no array {key!r}; it has: {', '.join(sorted(file.files)) or 'none'}. Name the right ones with "
            "dataset_config.x_train, y_train, x_test, y_test."
        )
    try:
        return file[key]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TfqatError(f"{path}: the array {key!r} cannot be read: {error}.") from error


def _shape(images: np.ndarray, dataset: Any) -> tuple[int, int, int]:
    size = getattr(dataset, "image_size", None)
    height, width = images.shape[1:3] if size is None else (size, size) if isinstance(size, int) else size
    return (int(height), int(width), int(images.shape[3]))


def _factor(dtypes: tuple[np.dtype, np.dtype], dataset: Any) -> float:
    """What training and validation images, of these types, are multiplied by."""
    if dataset.scale is not None:
        return dataset.scale
    factors = {FACTORS.get(dtype.kind if dtype.kind == "f" else dtype.name) for dtype in dtypes}
    if len(factors) == 1 and (factor := factors.pop()) is not None:
        return factor
    raise TfqatError(
        f"{dataset.path}: training images are {dtypes[0]} and validation images {dtypes[1]}; without a scale, expected "
        "both as uint8, both as uint16 or both as floats. Set dataset_config.scale (1 where the values stay as they "
        "are), or save the images in one of these types."
    )


def _decoder(factor: float, shape: tuple[int, int, int]) -> Any:
    def decode(image: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(image, tf.float32) * tf.constant(factor, tf.float32)
        if tuple(image.shape[:2]) != shape[:2]:
            scaled = tf.image.resize(scaled, shape[:2], antialias=True)
        return scaled

    return decode
