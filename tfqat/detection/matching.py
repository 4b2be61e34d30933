"""Matching: which object each anchor learns, by how much they overlap.

Written in keras.ops, so that it runs on numpy arrays, and in a data pipeline on tensors.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from tfqat.detection.boxes import encode, pairwise_iou

NOTHING, IGNORED = -1, -2


def match(
    anchors: Any, boxes: Any, positive: float = 0.5, negative: float = 0.5, force: bool = True, there: Any = None
) -> Any:
    """The index of each anchor's object, NOTHING or IGNORED, ``(anchors,)`` int32.

    An anchor has the object that it overlaps most (the first of several), if by an IoU of at least ``positive``;
    below ``negative`` it has none, in between it is ignored. With ``force`` an object gets the anchor that overlaps it
    most besides, as long as any does; of objects that want the same anchor, the one that overlaps it most gets it.

    Args:
        anchors: ``(anchors, 4)``.
        boxes: ``(objects, 4)``.
        positive, negative: IoU.
        force: whether each object gets an anchor.
        there: ``(objects,)`` bool: which rows are objects; all of them where None.

    Raises:
        ValueError: thresholds that are not ``0 <= negative <= positive <= 1``.
    """
    if not 0 <= negative <= positive <= 1:
        raise ValueError(
            f"match: expected thresholds 0 <= negative <= positive <= 1, received negative {negative} and positive "
            f"{positive}."
        )
    if boxes.shape[0] == 0:
        return ops.full((len(anchors),), NOTHING, "int32")
    overlaps = pairwise_iou(ops.cast(anchors, "float32"), ops.cast(boxes, "float32"))
    if there is not None:
        overlaps = ops.where(there, overlaps, -1.0)
    best, overlap = ops.cast(ops.argmax(overlaps, axis=1), "int32"), ops.max(overlaps, axis=1)
    found = ops.where(overlap >= positive, best, ops.where(overlap < negative, NOTHING, IGNORED))
    return ops.cast(_forced(found, overlaps) if force else found, "int32")


def _forced(found: Any, overlaps: Any) -> Any:
    """Each object's wish is the anchor that overlaps it most; of several wishes an anchor grants the nearest one's."""
    wanted = ops.cast(ops.argmax(overlaps, axis=0), "int32")
    rows = ops.arange(overlaps.shape[0], dtype="int32")
    wishes = ops.where(ops.expand_dims(rows, 1) == wanted, ops.maximum(overlaps, 0.0), 0.0)
    nearest = ops.cast(ops.argmax(wishes, axis=1), "int32")
    return ops.where(ops.max(wishes, axis=1) > 0, nearest, ops.cast(found, "int32"))


def targets(
    anchors: Any,
    boxes: Any,
    classes: Any,
    positive: float = 0.5,
    negative: float = 0.5,
    force: bool = True,
    crowd: Any = None,
) -> tuple[Any, Any]:
    """What the anchors of one image learn from its objects: classes ``(anchors,)`` int32 and codes ``(anchors, 4)``
    float32.

    An anchor's class is its object's, NOTHING, or IGNORED by the class loss; its code is the object's box relative to
    it, zeros without one. What a crowd box overlaps most, by ``positive`` at least, is ignored.

    Args:
        anchors: ``(anchors, 4)``.
        boxes: ``(objects, 4)``.
        classes: ``(objects,)``, from 0; rows below 0 are padding.
        positive, negative, force: as ``match`` takes them.
        crowd: ``(objects,)`` bool: boxes around many objects, which are no object to learn; none where None.
    """
    classes = ops.cast(classes, "int32")
    there = classes >= 0 if crowd is None else (classes >= 0) & ~ops.cast(crowd, "bool")
    matched = match(anchors, boxes, positive, negative, force, there)
    if boxes.shape[0] == 0:
        return matched, ops.zeros((len(anchors), 4), "float32")
    has, row = matched >= 0, ops.maximum(matched, 0)
    codes = encode(ops.take(ops.cast(boxes, "float32"), row, axis=0), ops.cast(anchors, "float32"))
    learnt = ops.where(has, ops.take(classes, row), matched)
    if crowd is not None:
        learnt = ops.where(_covered(anchors, boxes, crowd, positive) & ~has, IGNORED, learnt)
    return ops.cast(learnt, "int32"), ops.where(ops.expand_dims(has, 1), codes, 0.0)


def _covered(anchors: Any, boxes: Any, crowd: Any, positive: float) -> Any:
    """Which anchors a crowd box overlaps."""
    overlaps = pairwise_iou(ops.cast(anchors, "float32"), ops.cast(boxes, "float32"))
    return ops.max(ops.where(ops.cast(crowd, "bool"), overlaps, -1.0), axis=1) >= max(positive, 1e-6)
