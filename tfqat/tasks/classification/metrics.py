"""Metrics: how well scores name the classes of images; overall, for each class, and which are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# With fewer classes the five best scores name the right one by themselves.
FEWEST_FOR_TOP5 = 5
# As Keras clips probabilities before their logarithm.
_EPSILON = 1e-7


@dataclass(frozen=True)
class ClassMetrics:
    """One class.

    Attributes:
        name: of the class.
        precision: share of the images named so that are; None where none is named so.
        recall: share of its images that are named so; None where it has none.
        support: how many images it has.
    """

    name: str
    precision: float | None
    recall: float | None
    support: int


@dataclass(frozen=True, eq=False)
class Metrics:
    """All of one model on one set of images; shares are from 0 to 1.

    Attributes:
        images: how many.
        top1: share whose highest score is the label's (of equal scores the first).
        top5: share whose five highest scores hold the label's; None with fewer than five classes.
        loss: mean cross entropy; scores that are no probabilities are taken for logits.
        classes: one each.
        confusion: ``(classes, classes)`` counts: row is the label, column what the model says.
    """

    images: int
    top1: float
    top5: float | None
    loss: float
    classes: tuple[ClassMetrics, ...]
    confusion: np.ndarray

    @property
    def most_confused(self) -> list[tuple[str, str, int]]:
        """(label, what the model says, images) of all that is wrong, the most frequent first."""
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(self.classes[a].name, self.classes[b].name, int(wrong[a, b])) for a, b in pairs]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        classes = [
            {"class": c.name, "precision": c.precision, "recall": c.recall, "support": c.support} for c in self.classes
        ]
        numbers = {"images": self.images, "top1": self.top1, "top5": self.top5, "loss": self.loss}
        return {**numbers, "classes": classes, "confusion_matrix": self.confusion.tolist()}


def metrics_of(scores: np.ndarray, labels: np.ndarray, names: Sequence[str] = ()) -> Metrics:
    """The Metrics of scores ``(images, classes)`` against integer labels ``(images,)``.

    ``names`` are those of the classes; their numbers where there are none.
    """
    # scikit-learn takes a second to import.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    count = scores.shape[1]
    every, named = range(count), np.argmax(scores, axis=1)
    precision, recall, _, support = precision_recall_fscore_support(
        labels, named, labels=every, average=None, zero_division=np.nan
    )
    names = names or [str(number) for number in every]
    columns = zip(names, precision, recall, support, strict=True)
    return Metrics(
        images=len(labels),
        top1=float(np.mean(named == labels)),
        top5=_top(scores, labels, 5) if count >= FEWEST_FOR_TOP5 else None,
        loss=_cross_entropy(scores, labels),
        classes=tuple(ClassMetrics(name, _share(p), _share(r), int(s)) for name, p, r, s in columns),
        confusion=confusion_matrix(labels, named, labels=every),
    )


def _top(scores: np.ndarray, labels: np.ndarray, count: int) -> float:
    # Of equal scores the first ones, as np.argmax and Keras take them; INT8 outputs are often equal.
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return float(np.mean((best == labels[:, None]).any(axis=1)))


def _cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    scores = scores.astype(np.float64)
    rows = np.arange(len(labels))
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=0.05):
        shares = scores / scores.sum(axis=1, keepdims=True)
        return float(-np.log(np.clip(shares[rows, labels], _EPSILON, 1 - _EPSILON)).mean())
    shifted = scores - scores.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, labels]).mean())


def _share(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
