"""Criterion: cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfqat.tasks.classification.meter import FIGURE
from tfqat.tasks.classification.probabilities import probabilities_of
from tfqat.tasks.compiled import compile_with


@dataclass(frozen=True)
class CrossEntropy:
    """See :class:`tfqat.training.criterion.Criterion`."""

    loss: keras.losses.Loss
    figure: str = FIGURE

    @property
    def outputs(self) -> str:
        """Logits or probabilities."""
        return "logits" if self.loss.from_logits else "probabilities"

    def batches(self, data: Any) -> Any:
        """As they are."""
        return data

    def compile(self, model: keras.Model, optimizer: Any = None) -> None:
        """Compiles for classification."""
        compile_with(model, optimizer, self.loss, metrics=[FIGURE])

    def evaluate(self, model: keras.Model, batches: Any) -> Mapping[str, float]:
        """Mean cross entropy, and the share of images whose highest output is the label's."""
        found = model.evaluate(batches, verbose=0, return_dict=True)
        return {name: float(value) for name, value in found.items()}


def loss_for(model: keras.Model, dataset: Any) -> keras.losses.Loss:
    """Cross entropy that fits the outputs: probabilities where those of the first batch are, else logits."""
    images, _ = next(iter(dataset))
    outputs = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float64)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=probabilities_of(outputs) is not outputs)
