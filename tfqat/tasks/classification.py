"""Classification: one score a class for each image; cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL.Image import Image

from tfqat import data as datasets
from tfqat.core.drawing import titled
from tfqat.data.image_files import Prepared
from tfqat.data.pipeline import Data
from tfqat.errors import TfqatError
from tfqat.tasks.compiled import compile_with
from tfqat.tasks.task import Entries, Finished, Outputs
from tfqat.verification.metrics import Metrics, metrics_of
from tfqat.verification.metrics_table import metrics_tables
from tfqat.verification.model_file import ImageShape, ModelFile, ModelFileError

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

    def check_arrays(self, name: str, outputs: Outputs, targets: Any, data: Data) -> None:
        """One score for each class of the data."""
        scores, expected = outputs[0], self.spec.model.num_classes or len(data.class_names)
        found, top = scores.shape[1] if scores.ndim == 2 else None, int(np.max(targets))
        if found is None or (expected and found != expected) or found <= top:
            wanted = expected or f"at least {top + 1}"
            raise ModelFileError(
                f"{name} gives outputs of shape {scores.shape[1:]}, expected ({wanted},): one score for each class of "
                "the data. Name a file of a model that was trained on it."
            )

    def criterion(self, model: keras.Model, data: Data) -> CrossEntropy:
        """Cross entropy that fits the outputs: of probabilities where those of the first batch are, else of logits."""
        return CrossEntropy(loss_for(model, data.validation))

    def meter(self, data: Data) -> Accuracy:
        """Counts what is named rightly."""
        return Accuracy(data.class_names)

    def open_own(self, path: Path, cache: Path | None, precisions: Path | None, shape: ImageShape) -> ModelFile | None:
        """Classification has no form of its own."""
        return None

    def measure(self, data: Data) -> None:
        """Classes are compared image by image."""

    def finish(self, folder: Path, files: Entries) -> Entries:
        """Nothing."""
        return {}

    def finished(self, paths: Mapping[str, Path], data: Data) -> Sequence[Finished]:
        """None."""
        return ()

    def findings(
        self, name: str, outputs: Outputs, given: Sequence[Prepared], names: Sequence[str], threshold: float | None
    ) -> list[Label]:
        """The class of the highest score."""
        if threshold is not None:
            raise TfqatError("--threshold is for boxes; a classifier names a class of each image. Leave it out.")
        scores = np.asarray(outputs[0], np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(names):
            raise ModelFileError(f"{name} gives outputs of shape {scores.shape[1:]}, expected ({len(names)},).")
        shares = probabilities_of(scores)
        return [Label(names[row.argmax()], float(row.max()), dict(zip(names, row, strict=True))) for row in shares]

    def drawn(self, image: Image, finding: Any, names: Sequence[str]) -> Image:
        """The image with its label above it."""
        return titled(image, f"{finding.label} {finding.confidence:.1%}")


@dataclass(frozen=True)
class Label:
    """What a classifier says of one image; see :class:`tfqat.tasks.task.Finding`.

    Attributes:
        label: the class.
        confidence: its probability.
        probabilities: class -> probability.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        shares = {name: float(share) for name, share in self.probabilities.items()}
        return {"label": self.label, "confidence": self.confidence, "probabilities": shares}

    def rows(self) -> list[tuple[Any, ...]]:
        """One row."""
        return [(self.label, self.confidence)]


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


def probabilities_of(scores: np.ndarray) -> np.ndarray:
    """``(images, classes)``: the scores, or their softmax where they are no probabilities."""
    if scores.min() >= 0 and np.allclose(scores.sum(axis=-1), 1, atol=ROUNDED):
        return scores
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def loss_for(model: keras.Model, dataset: Any) -> keras.losses.Loss:
    """Cross entropy that fits the outputs: probabilities where those of the first batch are, else logits."""
    images, _ = next(iter(dataset))
    outputs = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float64)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=probabilities_of(outputs) is not outputs)
