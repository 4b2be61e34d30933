"""Matching: which object each anchor learns, by how much they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfqat.detection.boxes import encode, pairwise_iou

NOTHING, IGNORED = -1, -2


@dataclass(frozen=True)
class Targets:
    """What the anchors of one image learn.

    Attributes:
        classes: ``(anchors,)`` int32: the object's class; NOTHING, or IGNORED by the class loss.
        codes: ``(anchors, 4)`` float32: the object's box relative to the anchor; zeros without one.
    """

    classes: np.ndarray
    codes: np.ndarray


def match(
    anchors: np.ndarray, boxes: np.ndarray, positive: float = 0.5, negative: float = 0.5, force: bool = True
) -> np.ndarray:
    """The index of each anchor's object, NOTHING or IGNORED, ``(anchors,)`` int32.

    An anchor has the object that it overlaps most (the first of several), if by an IoU of at least ``positive``;
    below ``negative`` it has none, in between it is ignored. With ``force`` an object gets the anchor that overlaps it
    most besides, as long as any does; of objects that want the same anchor, the one that overlaps it most gets it.

    Raises:
        ValueError: thresholds that are not ``0 <= negative <= positive <= 1``.
    """
    if not 0 <= negative <= positive <= 1:
        raise ValueError(
            f"match: expected thresholds 0 <= negative <= positive <= 1, received negative {negative} and positive "
            f"{positive}."
        )
    if not len(boxes):
        return np.full(len(anchors), NOTHING, np.int32)
    overlaps = np.asarray(pairwise_iou(anchors.astype(np.float32), boxes.astype(np.float32)))
    best, overlap = overlaps.argmax(axis=1), overlaps.max(axis=1)
    found = np.where(overlap >= positive, best, np.where(overlap < negative, NOTHING, IGNORED))
    return (_forced(found, overlaps) if force else found).astype(np.int32)


def _forced(found: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    wanted, most = overlaps.argmax(axis=0), overlaps.max(axis=0)
    # From the least overlap to the most, so that the most has the last word.
    for index in np.argsort(most, kind="stable"):
        if most[index] > 0:
            found[wanted[index]] = index
    return found


def targets(
    anchors: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    positive: float = 0.5,
    negative: float = 0.5,
    force: bool = True,
) -> Targets:
    """What the anchors of one image learn from its objects; arguments as of ``match``.

    Args:
        anchors: ``(anchors, 4)``.
        boxes: ``(objects, 4)``, none without an area.
        classes: ``(objects,)``, from 0.
        positive, negative, force: as ``match`` takes them.
    """
    matched = match(anchors, boxes, positive, negative, force)
    has = matched >= 0
    given, codes = matched.copy(), np.zeros((len(anchors), 4), np.float32)
    if has.any():
        given[has] = classes[matched[has]]
        codes[has] = encode(boxes[matched[has]].astype(np.float32), anchors[has].astype(np.float32))
    return Targets(given, codes)
