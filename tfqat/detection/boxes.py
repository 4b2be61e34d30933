"""Box: ``ymin, xmin, ymax, xmax`` in pixels, in the last axis of an array; its code relative to an anchor, overlaps.

Written in keras.ops, so that they run on numpy arrays, and in a loss on tensors.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

# Keeps quotients of boxes without an area finite.
EPSILON = 1e-7
# Of a code: exp(10) would be 22,000 times the anchor.
LARGEST_GROWTH = 10.0


def encode(boxes: Any, anchors: Any) -> Any:
    """``(dy / ha, dx / wa, log(h / ha), log(w / wa))``, d from middle to middle (arXiv 1506.01497, equation 2)."""
    (y, x), (h, w) = _middle_and_size(boxes)
    (ya, xa), (ha, wa) = _middle_and_size(anchors)
    grown = (ops.log(ops.maximum(h, EPSILON) / ha), ops.log(ops.maximum(w, EPSILON) / wa))
    return ops.stack([(y - ya) / ha, (x - xa) / wa, *grown], axis=-1)


def decode(codes: Any, anchors: Any) -> Any:
    """The boxes that ``encode`` made the codes of; a size is at most ``exp(10)`` times the anchor's."""
    (ya, xa), (ha, wa) = _middle_and_size(anchors)
    y, x = codes[..., 0] * ha + ya, codes[..., 1] * wa + xa
    h = ops.exp(ops.minimum(codes[..., 2], LARGEST_GROWTH)) * ha
    w = ops.exp(ops.minimum(codes[..., 3], LARGEST_GROWTH)) * wa
    return ops.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], axis=-1)


def area(boxes: Any) -> Any:
    """Of each box; 0 where an end lies before its start."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Any, b: Any) -> Any:
    """Intersection over union of boxes, each with the other's at the same place (broadcast); 0 to 1."""
    return _iou_and_union(a, b)[0]


def pairwise_iou(a: Any, b: Any) -> Any:
    """Of each of n boxes with each of m, ``(n, m)``."""
    return iou(a[..., :, None, :], b[..., None, :, :])


def giou(a: Any, b: Any) -> Any:
    """``iou - (hull - union) / hull``, hull the smallest box around both; -1 to 1 (arXiv 1902.09630)."""
    found, union = _iou_and_union(a, b)
    hull = area(_hull(a, b))
    return found - (hull - union) / ops.maximum(hull, EPSILON)


def diou(a: Any, b: Any) -> Any:
    """``iou - d**2 / c**2``, d between the middles, c the hull's diagonal; -1 to 1 (arXiv 1911.08287)."""
    return iou(a, b) - _distance(a, b)


def ciou(a: Any, b: Any) -> Any:
    """``diou - alpha * v``, ``v = 4 / pi**2 * (atan(wb / hb) - atan(wa / ha))**2``, ``alpha = v / (1 - iou + v)``
    without a gradient of its own (arXiv 1911.08287, equations 8 to 11)."""
    overlap = iou(a, b)
    (_, (ha, wa)), (_, (hb, wb)) = _middle_and_size(a), _middle_and_size(b)
    # arctan2 rather than a quotient: a box of no height has an angle, too.
    v = 4 / math.pi**2 * ops.square(_angle(wb, hb) - _angle(wa, ha))
    alpha = ops.stop_gradient(v / ops.maximum(1 - overlap + v, EPSILON))
    return overlap - _distance(a, b) - alpha * v


def _angle(width: Any, height: Any) -> Any:
    return ops.arctan2(ops.maximum(width, EPSILON), ops.maximum(height, EPSILON))


def _middle_and_size(boxes: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    ymin, xmin, ymax, xmax = (boxes[..., index] for index in range(4))
    return ((ymin + ymax) / 2, (xmin + xmax) / 2), (ymax - ymin, xmax - xmin)


def _iou_and_union(a: Any, b: Any) -> tuple[Any, Any]:
    starts, ends = ops.maximum(a[..., :2], b[..., :2]), ops.minimum(a[..., 2:], b[..., 2:])
    shared = area(ops.concatenate([starts, ends], axis=-1))
    union = area(a) + area(b) - shared
    return shared / ops.maximum(union, EPSILON), union


def _hull(a: Any, b: Any) -> Any:
    starts, ends = ops.minimum(a[..., :2], b[..., :2]), ops.maximum(a[..., 2:], b[..., 2:])
    return ops.concatenate([starts, ends], axis=-1)


def _distance(a: Any, b: Any) -> Any:
    """The square of the middles' distance, in squares of the hull's diagonal."""
    hull = _hull(a, b)
    diagonal = ops.sum(ops.square(hull[..., 2:] - hull[..., :2]), axis=-1)
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return ops.sum(ops.square(between), axis=-1) / ops.maximum(diagonal, EPSILON)
