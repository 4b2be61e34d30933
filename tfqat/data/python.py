"""Python: tf.data datasets that a function of the user's own makes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from tfqat.data import python_labels
from tfqat.data.batch_fault import faults_explained
from tfqat.data.detection import python_boxes
from tfqat.data.pipeline import Data
from tfqat.data.user_function import call_with, user_function
from tfqat.errors import TfqatError

NAMES = ("train", "validation", "calibration")
# What an image is labeled with: one file each, with a NAME, `check` of what is declared, and `checked` of a batch.
TARGETS: dict[str, Any] = {module.NAME: module for module in (python_labels, python_boxes)}
EXPECTED = (
    "a dict with the keys train, validation and, if wanted, calibration, or a tuple in this order, of tf.data datasets "
    "of batches"
)


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """Data from ``pkg.mod:function``, which is called with the seeds of Keras and TensorFlow set.

    It is given ``seed``, where it has such an argument.
    It returns batched, finite datasets of images ``(batch, height, width, channels)`` and integer labels ``(batch,)``,
    or what :mod:`tfqat.data.detection.python_boxes` takes, as a dict or a tuple: train, validation and, optionally,
    calibration (by default the training data). ``train`` may also be a function of the epoch (a scalar int64 tensor)
    that returns the epoch's dataset. A plain dataset is repeated, and a resumed run reads and drops the epochs that are
    done, to stand where the broken one stood.
    """
    function, targets = user_function(dataset.function, "dataset_config.function"), TARGETS[dataset.targets]
    keras.utils.set_random_seed(seed)
    parts = _parts(call_with(function, {"seed": seed}), dataset.function)
    first = parts["train"](tf.constant(0, tf.int64)) if callable(parts["train"]) else parts["train"]
    parts.setdefault("calibration", first)
    shape = _image_shape(first, targets, dataset.function)
    for name in ("validation", "calibration"):
        _image_shape(parts[name], targets, dataset.function)
    steps = _batches(first, dataset.function)

    def checked(part: tf.data.Dataset) -> tf.data.Dataset:
        return part.map(lambda images, wanted: targets.checked(images, wanted, num_classes))

    return Data(
        train_from=lambda epoch: checked(_stream(parts["train"], epoch, steps)),
        steps=steps,
        validation=checked(parts["validation"]),
        calibration=checked(parts["calibration"]),
        num_classes=num_classes,
        input_shape=shape,
    )


def input_shape(dataset: Any) -> tuple[int, ...]:
    """One image of the function's training data."""
    return load(dataset, 0).input_shape


def _parts(returned: Any, name: str) -> dict[str, Any]:
    """Split name -> what the function returned for it, checked."""
    if isinstance(returned, (tuple, list)) and 2 <= len(returned) <= 3:
        returned = dict(zip(NAMES, returned, strict=False))
    if not isinstance(returned, dict):
        raise TfqatError(f"{name} must return {EXPECTED}; it returned {type(returned).__name__}.")
    unknown, missing = set(returned) - set(NAMES), {"train", "validation"} - set(returned)
    if unknown or missing:
        raise TfqatError(f"{name} must return {EXPECTED}; it returned the keys {sorted(map(str, returned))}.")
    for key, value in returned.items():
        if not isinstance(value, tf.data.Dataset) and not (key == "train" and callable(value)):
            raise TfqatError(f"{name} must return {EXPECTED}; its {key} is of type {type(value).__name__}.")
    return dict(returned)


def _image_shape(dataset: tf.data.Dataset, targets: Any, name: str) -> tuple[int, ...]:
    """The image shape, from the dataset's declared types; from its first batch where these leave a size open."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or not isinstance(spec[0], tf.TensorSpec):
        raise TfqatError(f"{name}: expected batches of (images, {targets.NAME}), received elements {spec}.")
    images, wanted = spec
    if images.shape.rank != 4 or None in images.shape[1:]:
        batch = next(iter(dataset.take(1)), None)
        images = images if batch is None else batch[0]
    if images.shape.rank != 4 or None in images.shape[1:]:
        raise TfqatError(f"{name}: expected images (batch, height, width, channels), received shape {images.shape}.")
    targets.check(tuple(images.shape[1:]), wanted, name)
    return tuple(images.shape[1:])


def _batches(dataset: tf.data.Dataset, name: str) -> int:
    """Batches in one epoch; counted by reading them where the dataset does not know."""
    count = int(dataset.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise TfqatError(f"{name}: the training dataset is endless. Limit an epoch with .take(steps).")
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = sum(1 for _ in dataset)
    if count == 0:
        raise TfqatError(f"{name}: the training dataset is empty.")
    return count


def _stream(train: Any, first: int, steps: int) -> tf.data.Dataset:
    if callable(train):
        return tf.data.Dataset.range(first, tf.int64.max).flat_map(train).prefetch(tf.data.AUTOTUNE)
    return train.repeat().skip(first * steps).prefetch(tf.data.AUTOTUNE)


def batches_explained() -> AbstractContextManager[None]:
    """Raises TfqatError in place of TensorFlow's error where the block reads a batch of wrong labels or boxes."""
    return faults_explained("dataset_config.function")
