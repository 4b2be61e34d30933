"""Classification: the task of a spec whose data are labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL.Image import Image

from tfqat import data as datasets
from tfqat.core.drawing import titled
from tfqat.data.image_files import Prepared
from tfqat.data.pipeline import Data, HeldOut
from tfqat.errors import TfqatError
from tfqat.tasks.classification.criterion import CrossEntropy, loss_for
from tfqat.tasks.classification.label import Label, labels_of
from tfqat.tasks.classification.meter import FIGURE, Accuracy
from tfqat.tasks.task import Entries, Finished, Outputs
from tfqat.verification.model_file import ImageShape, ModelFile, ModelFileError


@dataclass(frozen=True)
class Classification:
    """See :class:`tfqat.tasks.task.Task`."""

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
        return datasets.load(self.spec.dataset, self.spec.random_seed, self._num_classes(model))

    def held_out(self, model: keras.Model | None = None) -> HeldOut:
        """Images with integer labels."""
        return datasets.held_out(self.spec.dataset, self.spec.random_seed, self._num_classes(model))

    def check_arrays(self, name: str, outputs: Outputs, targets: Any, data: HeldOut) -> None:
        """One score for each class of the data."""
        scores, expected = outputs[0], self.spec.model.num_classes or len(data.class_names)
        found, top = scores.shape[1] if scores.ndim == 2 else None, int(np.max(targets))
        if found is None or (expected and found != expected) or found <= top:
            wanted = expected or f"at least {top + 1}"
            raise ModelFileError(
                f"{name} gives outputs of shape {scores.shape[1:]}, expected ({wanted},): one score for each class of "
                "the data. Name a file of a model that was trained on it."
            )

    def criterion(self, model: keras.Model, data: HeldOut) -> CrossEntropy:
        """Cross entropy that fits the outputs: of probabilities where those of the first batch are, else of logits."""
        return CrossEntropy(loss_for(model, data.validation))

    def meter(self, data: HeldOut) -> Accuracy:
        """Counts what is named rightly."""
        return Accuracy(data.class_names)

    def open_own(self, path: Path, cache: Path | None, precisions: Path | None, shape: ImageShape) -> ModelFile | None:
        """Classification has no form of its own."""
        return None

    def measure(self, data: HeldOut) -> None:
        """Classes are compared image by image."""

    def finish(self, folder: Path, files: Entries) -> Entries:
        """Nothing."""
        return {}

    def finished(self, paths: Mapping[str, Path], data: HeldOut) -> Sequence[Finished]:
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
        return labels_of(scores, names)

    def drawn(self, image: Image, finding: Any, names: Sequence[str]) -> Image:
        """The image with its label above it."""
        return titled(image, f"{finding.label} {finding.confidence:.1%}")

    def _num_classes(self, model: keras.Model | None) -> int | None:
        return self.spec.model.num_classes if model is None else model.output_shape[-1]
