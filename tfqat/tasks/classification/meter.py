"""Meter: how often the highest score is the label's, and all that follows from scores and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfqat.tasks.classification.metrics import Metrics, metrics_of
from tfqat.tasks.classification.metrics_table import metrics_tables
from tfqat.tasks.task import Outputs

FIGURE = "accuracy"


@dataclass
class Accuracy:
    """See :class:`tfqat.tasks.task.Meter`."""

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
    """See :class:`tfqat.tasks.task.Result`."""

    metrics: Metrics

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.metrics.to_dict()

    def tables(self, name: str, run_by: str) -> Any:
        """Of all images, of the classes, of what is taken for what."""
        return metrics_tables(name, run_by, self.metrics)
