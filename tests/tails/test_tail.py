"""Tail: its settings."""

from __future__ import annotations

import numpy as np
import pytest

from tfqat.detection.anchors import anchor_boxes
from tfqat.tails.tail import Tail, TailError

BOX = np.array([[0, 0, 4, 8]])
REFUSED = [
    ({"anchors": BOX[0]}, r"anchors: expected the shape \(anchors, 4\), received \(4,\)"),
    ({"anchors": BOX[:0]}, r"received \(0, 4\)"),
    ({"anchors": [[0, 0, 4, np.nan]]}, "expected finite boxes"),
    ({"anchors": [[4, 0, 0, 8]]}, "of some height and width"),
    ({"image_size": (64,)}, "expected height and width in pixels"),
    ({"image_size": (64, 0)}, "expected height and width in pixels"),
    ({"class_logits": "box_regression"}, "received 'box_regression' for both"),
    ({"score_threshold": -0.1}, "score_threshold: expected 0 to below 1, received -0.1"),
    ({"score_threshold": 1.0}, "score_threshold: expected 0 to below 1"),
    ({"score_threshold": np.nan}, "score_threshold: expected 0 to below 1, received nan"),
    ({"iou_threshold": 0.0}, "iou_threshold: expected above 0 to 1, received 0.0"),
    ({"iou_threshold": 1.5}, "iou_threshold: expected above 0 to 1"),
    ({"max_detections": 0}, "max_detections: expected an integer of at least 1"),
    ({"max_detections": 2.5}, "max_detections: expected an integer of at least 1"),
]


@pytest.mark.parametrize(
    ("setting", "message"), REFUSED, ids=[f"{next(iter(row[0]))}{n}" for n, row in enumerate(REFUSED)]
)
def test_refused(setting, message):
    with pytest.raises(TailError, match=message):
        Tail(**{"anchors": BOX, "image_size": (64, 64)} | setting)


def test_middles_and_sizes_of_a_detectors_anchors():
    tail = Tail(anchor_boxes((128, 128)), (128, 128))
    np.testing.assert_array_equal(tail.middles[0], [4, 4])
    np.testing.assert_allclose(tail.sizes[1], [32 / 2**0.5, 32 * 2**0.5], rtol=1e-6)
