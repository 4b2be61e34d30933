"""Criterion: what a model is trained for and judged by; made by a task (tfqat.tasks), which training does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import keras
import tensorflow as tf


class Criterion(Protocol):
    """What training asks of a task.

    Attributes:
        figure: name of the number that says how good a model is, from 0 to 1, more is better.
        outputs: what the outputs are to a distillation: logits, probabilities or values.
    """

    figure: str
    outputs: str

    def batches(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of training data as the compiled losses take them."""
        ...

    def compile(self, model: keras.Model, optimizer: Any = None) -> None:
        """Compiles ``model`` with the task's losses; without an optimizer where it is only evaluated."""
        ...

    def evaluate(self, model: keras.Model, batches: tf.data.Dataset) -> Mapping[str, float]:
        """``loss`` and the figure, among others, of a compiled model."""
        ...
