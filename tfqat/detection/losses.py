"""Loss: how far a detector's numbers are from what its anchors are to learn, in keras.ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from tfqat.detection.boxes import ciou, decode, diou, giou, iou
from tfqat.detection.matching import IGNORED

ALPHA, GAMMA = 0.25, 1.5
DELTA, BOX_WEIGHT = 0.1, 50.0
# Overlap of two boxes -> loss is 1 less it.
OVERLAPS: Mapping[str, Callable[[Any, Any], Any]] = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def focal(hot: Any, logits: Any, alpha: float = ALPHA, gamma: float = GAMMA) -> Any:
    """``-alpha_t * (1 - p_t)**gamma * log(p_t)`` of each logit (arXiv 1708.02002, equation 5).

    ``p_t`` is ``sigmoid(logit)`` where ``hot`` is 1 and ``1 - sigmoid(logit)`` where it is 0; ``alpha_t`` likewise.
    """
    logits = ops.cast(logits, "float32")
    signed = logits * (2 * hot - 1)
    # log(p_t) = -softplus(-signed) and log(1 - p_t) = -softplus(signed), neither of which loses digits. No power: its
    # gradient is not finite where 1 - p_t is 0 and gamma below 1.
    weight = alpha * hot + (1 - alpha) * (1 - hot)
    return weight * ops.exp(-gamma * ops.softplus(signed)) * ops.softplus(-signed)


def huber(errors: Any, delta: float = DELTA) -> Any:
    """``e**2 / 2`` up to delta, ``delta * (abs(e) - delta / 2)`` beyond."""
    size = ops.abs(ops.cast(errors, "float32"))
    return ops.where(size <= delta, size * size / 2, delta * (size - delta / 2))


def positives(classes: Any) -> Any:
    """How many anchors of the batch have an object, plus 1, as both losses are divided by."""
    return 1.0 + ops.sum(ops.cast(classes >= 0, "float32"))


def class_loss(classes: Any, logits: Any, alpha: float = ALPHA, gamma: float = GAMMA) -> Any:
    """The focal loss of all anchors and classes, divided by ``positives``; IGNORED anchors count nothing.

    Args:
        classes: ``(batch, anchors)``, as matching gives them.
        logits: ``(batch, anchors, num_classes)``.
        alpha, gamma: of the focal loss.
    """
    hot = ops.cast(ops.expand_dims(classes, -1) == ops.arange(logits.shape[-1], dtype=classes.dtype), "float32")
    counted = ops.cast(classes != IGNORED, "float32")
    return ops.sum(focal(hot, logits, alpha, gamma) * ops.expand_dims(counted, -1)) / positives(classes)


def box_loss(classes: Any, codes: Any, regression: Any, delta: float = DELTA) -> Any:
    """The Huber loss of the four numbers of each anchor with an object, divided by 4 times ``positives``.

    Args:
        classes: ``(batch, anchors)``, as matching gives them.
        codes, regression: ``(batch, anchors, 4)``: wanted and given.
        delta: of the Huber loss.
    """
    has = ops.expand_dims(ops.cast(classes >= 0, "float32"), -1)
    return ops.sum(huber(codes - regression, delta) * has) / (4.0 * positives(classes))


def overlap_loss(classes: Any, codes: Any, regression: Any, anchors: Any, kind: str) -> Any:
    """``1 - overlap`` of the boxes of each anchor with an object, divided by ``positives``.

    Args:
        classes: ``(batch, anchors)``, as matching gives them.
        codes, regression: ``(batch, anchors, 4)``: wanted and given.
        anchors: ``(anchors, 4)``.
        kind: ``iou``, ``giou``, ``diou`` or ``ciou``.

    Raises:
        ValueError: another kind.
    """
    if kind not in OVERLAPS:
        raise ValueError(f"overlap_loss: expected one of {', '.join(OVERLAPS)}, received {kind!r}.")
    has = ops.cast(classes >= 0, "float32")
    overlaps = OVERLAPS[kind](decode(codes, anchors), decode(ops.cast(regression, "float32"), anchors))
    return ops.sum((1.0 - overlaps) * has) / positives(classes)


def detection_loss(classes: Any, codes: Any, logits: Any, regression: Any, box_weight: float = BOX_WEIGHT) -> Any:
    """``class_loss + box_weight * box_loss``, as EfficientDet is trained."""
    return class_loss(classes, logits) + box_weight * box_loss(classes, codes, regression)
