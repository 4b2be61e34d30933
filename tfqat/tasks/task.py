"""Task: what the outputs of a model mean, and so what it learns from, and by which figure it is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from PIL.Image import Image

from tfqat.data.image_files import Prepared
from tfqat.data.pipeline import Data, HeldOut
from tfqat.training.criterion import Criterion
from tfqat.verification import tally
from tfqat.verification.model_file import ImageShape, ModelFile

# The arrays of a model's outputs, in the order in which Keras flattens them, for all images of a batch.
Outputs = Sequence[np.ndarray]


class Meter(tally.Meter, Protocol):
    """A Meter as verification takes it, which can tell more than the figure."""

    def result(self) -> Result:
        """All that is to be said of it."""
        ...


class Finding(Protocol):
    """What a model says of one image."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        ...

    def rows(self) -> list[tuple[Any, ...]]:
        """Label, confidence, and what the task has besides."""
        ...


class Result(Protocol):
    """What a Meter found."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        ...

    def tables(self, name: str, run_by: str) -> Any:
        """As rich prints it, for the model ``name`` that the program ``run_by`` ran."""
        ...


@dataclass(frozen=True)
class Finished:
    """A file of the task's own form, measured.

    Attributes:
        role: of the file.
        name: of the row.
        run_by: the program.
        score: the task's figure.
        problem: what is wrong with it, as a sentence; empty where nothing is.
        note: what is to be said of it, else empty.
    """

    role: str
    name: str
    run_by: str
    score: float
    problem: str = ""
    note: str = ""


# Role -> file name and what reads it.
Entries = Mapping[str, tuple[str, str]]


class Task(Protocol):
    """One task of one spec.

    Attributes:
        figure: name of the number by which its models are compared, 0 to 1, more is better.
        outputs: how many outputs its models have.
    """

    figure: str
    outputs: int

    def check(self, model: keras.Model, source: str) -> None:
        """Raises TfqatError unless the outputs of ``model``, which came from ``source``, are those of the task."""
        ...

    def data(self, model: keras.Model | None = None) -> Data:
        """The spec's data, checked against the classes of the model; of the spec where there is none."""
        ...

    def held_out(self, model: keras.Model | None = None) -> HeldOut:
        """Of :meth:`data` what a model is measured on, without the training images that it learned from."""
        ...

    def check_arrays(self, name: str, outputs: Outputs, targets: Any, data: HeldOut) -> None:
        """Raises TfqatError unless what the file ``name`` gave is of the shape that the data need."""
        ...

    def criterion(self, model: keras.Model, data: HeldOut) -> Criterion:
        """What the float ``model`` and all that is made of it are trained and judged by."""
        ...

    def meter(self, data: HeldOut) -> Meter:
        """An empty Meter for outputs on ``data``."""
        ...

    def findings(
        self, name: str, outputs: Outputs, given: Sequence[Prepared], names: Sequence[str], threshold: float | None
    ) -> Sequence[Finding]:
        """A Finding of each image, of what the file ``name`` gave for them."""
        ...

    def drawn(self, image: Image, finding: Any, names: Sequence[str]) -> Image:
        """The image with what was found."""
        ...

    def open_own(self, path: Path, cache: Path | None, precisions: Path | None, shape: ImageShape) -> ModelFile | None:
        """A file of a form that only this task knows, opened; None where it is none."""
        ...

    def measure(self, data: HeldOut) -> tuple[str, Callable[[], Meter]] | None:
        """The figure and its meter for `verify`; None where outputs are classes, which it compares image by image."""
        ...

    def finish(self, folder: Path, files: Entries) -> Entries:
        """Writes files of such forms into the folder of an export, of its files; as the spec asks."""
        ...

    def finished(self, paths: Mapping[str, Path], data: HeldOut) -> Sequence[Finished]:
        """Such files of an export, measured and held against the files that they were made of."""
        ...
