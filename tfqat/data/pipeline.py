"""Data: streams of (image, label) batches, each a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfqat.errors import TfqatError

# Epochs of the calibration data's shuffle are counted from here: an order that no training epoch has.
CALIBRATION_EPOCH = 2**40


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """What a model is measured on: batches of images ``(batch, height, width, channels)`` float32 with integer labels
    ``(batch,)``, or with the dict of targets that `detection.pipeline` describes.

    Attributes:
        validation: all validation batches, in a fixed order.
        num_classes: how many classes the labels count, where the data itself says so.
        input_shape: shape of one image.
        class_names: where the data has them.
    """

    validation: tf.data.Dataset
    num_classes: int | None
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Data(HeldOut):
    """What is held out, and what a model learns from: batches of the same form.

    Attributes:
        train_from: epoch -> endless stream of batches that starts with this epoch's first one.
        steps: batches in a training epoch.
        calibration: training images without augmentation, in a fixed shuffled order.
    """

    train_from: Callable[[int], tf.data.Dataset]
    steps: int
    calibration: tf.data.Dataset

    def train(self, epoch: int) -> tf.data.Dataset:
        """The batches of one training epoch, the same whenever it is run."""
        return self.train_from(epoch).take(self.steps)


@dataclass(frozen=True, eq=False)
class Split:
    """Labeled items of one split, and how an item becomes an image.

    Attributes:
        items: images, or file names, one a row.
        labels: ``(items,)`` int32.
        decode: item -> image, deterministic.
        augmented: (item, seed of two int64) -> image, for training; None where nothing is augmented.
    """

    items: np.ndarray | tf.Tensor
    labels: np.ndarray
    decode: Callable[[tf.Tensor], tf.Tensor]
    augmented: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None


def seeded(
    train: Split,
    validation: Split,
    shape: tuple[int, ...],
    batch_size: int,
    seed: int,
    class_names: tuple[str, ...] = (),
) -> Data:
    """Data of in-memory items. The last, smaller batch of a training epoch is left out: each step then sees the same
    number of images, which BatchNorm and the ranges' averages rely on; the shuffle leaves out other images each time.
    """
    size = min(batch_size, len(train.labels))
    # One copy as a tensor, which all pipelines share.
    train = replace(train, items=tf.constant(train.items))
    return Data(
        train_from=lambda epoch: _stream(train, shape, size, seed, epoch),
        steps=len(train.labels) // size,
        validation=in_their_order(validation, shape, batch_size),
        calibration=_ordered(train, shape, size, calibration_order(len(train.labels), seed)),
        num_classes=len(class_names) or int(max(train.labels.max(), validation.labels.max())) + 1,
        input_shape=shape,
        class_names=class_names,
    )


def in_their_order(split: Split, shape: tuple[int, ...], batch_size: int) -> tf.data.Dataset:
    """Batches of all items, not augmented."""
    items = replace(split, items=tf.constant(split.items))
    return _ordered(items, shape, batch_size, np.arange(len(split.labels)))


def check_labels(labels: np.ndarray, num_classes: int | None, where: str) -> None:
    """Raises TfqatError where a label is not from 0 to ``num_classes - 1``."""
    top = np.inf if num_classes is None else num_classes - 1
    wrong = np.flatnonzero((labels < 0) | (labels > top))
    if wrong.size:
        raise TfqatError(
            f"{where}: {wrong.size} of {labels.size} labels are out of range, the first at index {wrong[0]}: expected "
            f"0 to {'...' if num_classes is None else top}, received {labels[wrong[0]]}. Set model_config.num_classes "
            f"to {max(int(labels.max()) + 1, 1)}, or correct the labels."
        )


def shuffled_epochs(
    count: int, element: Callable[[tf.Tensor, tf.Tensor], Any], batch_size: int, seed: int, first: int
) -> tf.data.Dataset:
    """Endless batches of ``element(index, epoch)`` from epoch ``first`` on, each epoch in an order of its own.

    The epoch is a number in the pipeline, so that one pipeline (and one call of Keras' fit) serves all epochs and a
    resumed run need not go through those that are done.
    """

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        indices = tf.random.experimental.stateless_shuffle(
            tf.range(count, dtype=tf.int64), tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        examples = tf.data.Dataset.from_tensor_slices(indices).map(
            lambda index: element(index, epoch), num_parallel_calls=tf.data.AUTOTUNE
        )
        return examples.batch(batch_size, drop_remainder=True)

    epochs = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    return epochs.flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)


def in_order(order: np.ndarray, element: Callable[[tf.Tensor], Any], batch_size: int) -> tf.data.Dataset:
    """Batches of ``element(index)`` in the given order."""
    indices = tf.data.Dataset.from_tensor_slices(order.astype(np.int64))
    return indices.map(element, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def calibration_order(count: int, seed: int) -> np.ndarray:
    """The order of the calibration data: one that no training epoch has."""
    return tf.random.experimental.stateless_shuffle(
        tf.range(count, dtype=tf.int64), tf.constant([seed, CALIBRATION_EPOCH], tf.int64)
    ).numpy()


def _stream(split: Split, shape: tuple[int, ...], batch_size: int, seed: int, first: int) -> tf.data.Dataset:
    """Endless batches from epoch ``first`` on."""
    items, labels = split.items, tf.constant(split.labels)

    def element(index: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if split.augmented is None:
            return tf.ensure_shape(split.decode(items[index]), shape), labels[index]
        draw = tf.stack([tf.constant(seed, tf.int64), epoch * len(split.labels) + index])
        return tf.ensure_shape(split.augmented(items[index], draw), shape), labels[index]

    return shuffled_epochs(len(split.labels), element, batch_size, seed, first)


def _ordered(split: Split, shape: tuple[int, ...], batch_size: int, order: np.ndarray) -> tf.data.Dataset:
    """Batches in the given order, not augmented."""
    items, labels = split.items, tf.constant(split.labels)
    return in_order(
        order, lambda index: (tf.ensure_shape(split.decode(items[index]), shape), labels[index]), batch_size
    )
