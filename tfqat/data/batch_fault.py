"""Batch fault: what is wrong with a batch that a user's function made; found within tf.data, told as a TfqatError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tfqat.errors import TfqatError

START = "A batch has"
# TensorFlow puts the text in brackets, and behind it the node in double ones.
_TOLD = re.compile(rf"\[({START} .*?)\](?=\s*(\[\[|\[Op:|$))", re.DOTALL)


def require(right: tf.Tensor, text: str, *values: Any) -> Any:
    """An op that stops the run unless ``right``, with ``A batch has <text>``, in which each {} is one of ``values``."""
    return tf.debugging.Assert(right, [tf.strings.format(f"{START} {text}", values)])


@contextmanager
def faults_explained(where: str) -> Iterator[None]:
    """Raises TfqatError in place of TensorFlow's error where the block reads a batch that is not as required."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _TOLD.search(error.message)
        if not found:
            raise
        text = found.group(1).replace("\\'", "'")
        raise TfqatError(f"{where}: {text}") from error
