"""Classification: one score a class for each image; cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfqat import data as datasets
from tfqat.data.pipeline import Data
from tfqat.errors import TfqatError
from tfqat.tasks.compiled import compile_with
from tfqat.tasks.task import Outputs
from tfqat.verification.metrics import Metrics, metrics_of
from tfqat.verification.metrics_table import metrics_tables

FIGURE = "accuracy"
# How far the sum of probabilities may be from 1: those of bfloat16 have 8 bits each.
ROUNDED = 0.02


def task(spec: Any) -> Classification:
    """The Task of a spec."""
    return Classification(spec)


@dataclass(frozen=True)
class Classification:
    """The Task: see :class:`tfqat.tasks.task.Task`."""

    spec: Any
    figure: str = FIGURE
    outputs: int = 1

    def check(self, model: keras.Model, source: str) -> None:
        """One output of one score a class."""
        if len(model.outputs) != 1:
            raise TfqatError(
                f"model_config: {source} has {len(model.outputs)} outputs, expected one: one score a class. Train such "
                "a model from Python: tfqat.prepare, and fit or a loop of your own."
            )
        classes, expected = tuple(model.outputs[0].shape[1:]), self.spec.model.num_classes
        if len(classes) != 1 or (expected is not None and classes != (expected,)):
            raise TfqatError(
                f"model_config: {source} has outputs of shape {classes}; expected ({expected or 'classes'},), one "
                "score a class. Change model_config.num_classes or the model."
            )

    def data(self, model: keras.Model | None = None) -> Data:
        """Images with integer labels."""
        classes = self.spec.model.num_classes if model is None else model.output_shape[-1]
        return datasets.load(self.spec.dataset, self.spec.random_seed, classes)

    def criterion(self, model: keras.Model, data: Data) -> CrossEntropy:
        """Cross entropy that fits the outputs: of probabilities where those of the first batch are, else of logits."""
        return CrossEntropy(loss_for(model, data.validation))

    def meter(self, data: Data) -> Accuracy:
        """Counts what is named rightly."""
        return Accuracy(data.class_names)


@dataclass(frozen=True)
class CrossEntropy:
    """The Criterion: see :class:`tfqat.training.criterion.Criterion`."""

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


@dataclass
class Accuracy:
    """The Meter: see :class:`tfqat.tasks.task.Meter`."""

    names: tuple[str, ...] = ()
    scores: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)

    def add(self, outputs: Outputs, targets: Any) -> None:
        """Scores ``(batch, classes)`` and integer labels ``(batch,)``."""
        self.scores.append(np.asarray(outputs[0]))
        self.labels.append(np.asarray(targets))

    def figure(self) -> float:
        """Share of the images whose highest score is the label's."""
        right = np.concatenate([s.argmax(-1) == t for s, t in zip(self.scores, self.labels, strict=True)])
        return float(right.mean())

    def result(self) -> ClassificationResult:
        """All metrics."""
        scores = np.concatenate(self.scores).astype(np.float32)
        return ClassificationResult(metrics_of(scores, np.concatenate(self.labels), self.names))


@dataclass(frozen=True)
class ClassificationResult:
    """Metrics as a Result."""

    metrics: Metrics

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.metrics.to_dict()

    def tables(self, name: str, run_by: str) -> Any:
        """Of all images, of the classes, of what is taken for what."""
        return metrics_tables(name, run_by, self.metrics)


def loss_for(model: keras.Model, dataset: Any) -> keras.losses.Loss:
    """Cross entropy that fits the outputs: probabilities where those of the first batch are, else logits."""
    images, _ = next(iter(dataset))
    outputs = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float64)
    probabilities = outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=ROUNDED)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
