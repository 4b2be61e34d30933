"""Tally: what one run of a model says of a data set, gathered batch by batch, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tfqat.verification.report import Row, top1


class Meter(Protocol):
    """Gathers what a model says of a data set, batch by batch, and measures it."""

    def add(self, outputs: Sequence[np.ndarray], targets: Any) -> None:
        """Adds one batch: what the model gave, and what the data set wants."""
        ...

    def figure(self) -> float:
        """The figure over all that was added, 0 to 1."""
        ...


class Tally(Protocol):
    """One run; holds no outputs, of which a large data set has more than memory."""

    def add(self, outputs: Sequence[np.ndarray], targets: Any) -> None:
        """Adds one batch."""
        ...

    def row(self, name: str, trained: Any) -> Row:
        """The Row of the run beside ``trained``, the Tally of the trained model's own."""
        ...


class Classes:
    """A Tally of the classes on top, if the outputs are classes.

    Args:
        output: the number of the output that has them.
    """

    def __init__(self, output: int) -> None:
        self.output, self.images = output, 0
        self.tops, self.labels = list[np.ndarray | None](), list[Any]()

    def add(self, outputs: Sequence[np.ndarray], targets: Any) -> None:
        """Adds one batch."""
        self.images += len(outputs[0])
        self.tops.append(top1(outputs[self.output]))
        self.labels.append(targets)

    def row(self, name: str, trained: Classes) -> Row:
        """How many classes are right, and how many the trained model's."""
        found, wanted, labels = _joined(self.tops), _joined(trained.tops), _labels(self.labels)
        if found is None or wanted is None:
            return Row(name, self.images)
        flat = found.reshape(self.images, -1)
        agreeing = int((flat == wanted.reshape(self.images, -1)).mean(axis=1).sum().round())
        fits = labels is not None and labels.shape == found.shape
        return Row(name, self.images, int((found == labels).sum()) if fits and found.ndim == 1 else None, agreeing)


class Measured:
    """A Tally of a task's figure."""

    def __init__(self, meter: Meter) -> None:
        self.images, self.meter = 0, meter

    def add(self, outputs: Sequence[np.ndarray], targets: Any) -> None:
        """Adds one batch."""
        self.images += len(outputs[0])
        self.meter.add(outputs, targets)

    def row(self, name: str, trained: Measured) -> Row:
        """The figure."""
        return Row(name, self.images, measured=self.meter.figure())


def _joined(tops: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [top for top in tops if top is not None]
    return np.concatenate(known) if len(known) == len(tops) else None


def _labels(targets: Sequence[Any]) -> np.ndarray | None:
    """Integer labels of all images; None where a batch has none."""
    labels = [label for label in targets if isinstance(label, np.ndarray)]
    if len(labels) != len(targets) or any(not np.issubdtype(label.dtype, np.integer) for label in labels):
        return None
    return np.concatenate([label.reshape(len(label), -1)[:, 0] if label.ndim == 2 else label for label in labels])
