"""Python labels: the classes of a batch of images, as a function of the user's own gives them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfqat.data.batch_fault import require
from tfqat.errors import TfqatError

NAME = "labels"


def check(shape: tuple[int, ...], labels: Any, name: str) -> None:
    """Raises TfqatError unless what is declared of the function ``name`` is integer labels."""
    if not isinstance(labels, tf.TensorSpec) or not labels.dtype.is_integer or labels.shape.rank not in (None, 1):
        raise TfqatError(f"{name}: expected integer labels of shape (batch,), received {labels}.")


def checked(images: tf.Tensor, labels: tf.Tensor, num_classes: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """The same as float32 and int32; a label out of range stops the run with a message."""
    top = tf.int32.max if num_classes is None else num_classes - 1
    # Before the cast, in which a label above int32 would become another one.
    numbers = tf.cast(labels, tf.int64)
    lowest, highest = tf.reduce_min(numbers), tf.reduce_max(numbers)
    text = (
        f"labels out of range: expected 0 to {top}, received {{}} to {{}}. Set model_config.num_classes, or correct "
        "the labels."
    )
    with tf.control_dependencies([require((lowest >= 0) & (highest <= top), text, lowest, highest)]):
        return tf.cast(images, tf.float32), tf.cast(labels, tf.int32)
