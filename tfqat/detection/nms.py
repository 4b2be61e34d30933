"""Suppression: of boxes of one class that overlap, the one with the highest score stays (NMS), in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# As boxes.EPSILON: boxes without an area overlap nothing.
EPSILON = 1e-7


@dataclass(frozen=True)
class Detections:
    """What was found in one image, by falling score.

    Attributes:
        boxes: ``(found, 4)`` float32, ``ymin, xmin, ymax, xmax`` in pixels.
        scores: ``(found,)`` float32.
        classes: ``(found,)`` int32.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
    top: int = 100,
    candidates: int = 5000,
) -> Detections:
    """The detections of one image, each class for itself.

    A box goes where one of its class with a higher score (the earlier, of equal ones), that stays, overlaps it by an
    IoU above ``iou_threshold``.

    Args:
        boxes: ``(anchors, 4)``.
        scores: ``(anchors, classes)``.
        iou_threshold: overlap above which a box goes.
        score_threshold: scores below it are left out first.
        top: how many stay at most, of all classes together.
        candidates: how many scores are looked at, the highest of all classes together.
    """
    anchors, classes = np.nonzero(scores >= _lowest(scores, score_threshold, candidates))
    found = scores[anchors, classes]
    order = np.argsort(-found, kind="stable")[:candidates]
    anchors, classes, found = anchors[order], classes[order], found[order]
    kept = _kept(boxes[anchors].astype(np.float64), classes, iou_threshold, top)
    return Detections(
        boxes[anchors[kept]].astype(np.float32), found[kept].astype(np.float32), classes[kept].astype(np.int32)
    )


def _lowest(scores: np.ndarray, threshold: float, candidates: int) -> float:
    """The score below which none is a candidate; found without sorting all, of which there are millions."""
    if scores.size <= candidates:
        return threshold
    return max(threshold, float(np.partition(scores, -candidates, axis=None)[-candidates]))


def _kept(boxes: np.ndarray, classes: np.ndarray, threshold: float, top: int) -> np.ndarray:
    """Places of the boxes that stay, of boxes by falling score."""
    waiting, kept = np.arange(len(boxes)), list[int]()
    while len(waiting) and len(kept) < top:
        first, rest = waiting[0], waiting[1:]
        kept.append(first)
        same = classes[rest] == classes[first]
        covered = np.zeros(len(rest), bool)
        covered[same] = _overlaps(boxes[first], boxes[rest[same]]) > threshold
        waiting = rest[~covered]
    return np.asarray(kept, np.int64)


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = _area(box) + _area(others) - shared
    return shared / np.maximum(union, EPSILON)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
