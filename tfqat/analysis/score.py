"""Score: how a form of a model does on samples, beside the float form.

accuracy      share of the samples whose greatest output is the label's, 0 to 1
output error  ||y - y_float|| / ||y_float|| over all samples, the mean over the model's outputs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Score:
    """``accuracy`` is None where the data have no labels that the model's output could be held against."""

    accuracy: float | None
    output_error: float


@dataclass
class Tally:
    """Gathers a Score part by part."""

    samples: int = 0
    right: int | None = 0
    noise: list[float] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)

    def add(self, outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray], labels: np.ndarray | None) -> None:
        """Adds the outputs of some samples, with those of the float form."""
        self.noise = _summed(self.noise, [a.astype(np.float64) - b for a, b in zip(outputs, reference, strict=True)])
        self.signal = _summed(self.signal, [array.astype(np.float64) for array in reference])
        self.samples += len(outputs[0])
        if labels is None or self.right is None or not is_scores(outputs):
            self.right = None
        else:
            self.right += int((outputs[0].argmax(-1) == labels).sum())

    def score(self) -> Score:
        """What was gathered."""
        accuracy = None if self.right is None else self.right / max(self.samples, 1)
        pairs = zip(self.noise, self.signal, strict=True)
        errors = [float(np.sqrt(noise / signal)) if signal else float(noise > 0) for noise, signal in pairs]
        return Score(accuracy, float(np.mean(errors)))


def is_scores(outputs: Sequence[np.ndarray]) -> bool:
    """Whether a model gives one score for each of several classes, and nothing else."""
    return len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1


def _summed(before: list[float], arrays: Sequence[np.ndarray]) -> list[float]:
    sums = [float(np.square(array).sum()) for array in arrays]
    return [a + b for a, b in zip(before, sums, strict=True)] if before else sums
