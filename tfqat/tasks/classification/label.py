"""Label: what a classifier says of one image, as files have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfqat.tasks.classification.probabilities import probabilities_of

# How far the sum of probabilities may be from 1 for each class: an int8 output has steps of 1/256.
STEP, MOST = 1 / 256, 0.25


@dataclass(frozen=True)
class Label:
    """See :class:`tfqat.tasks.task.Finding`.

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


def labels_of(scores: np.ndarray, names: Sequence[str]) -> list[Label]:
    """The Label of each image, of scores ``(images, classes)``, probabilities or logits."""
    shares = probabilities_of(scores, min(len(names) * STEP, MOST))
    return [Label(names[row.argmax()], float(row.max()), dict(zip(names, row, strict=True))) for row in shares]
