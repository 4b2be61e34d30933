"""Anchors, against loops written out and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfqat.detection.anchors import Anchors, anchor_boxes
from tfqat.models.efficientdet.model import ANCHORS


def loops(height, width):
    found = []
    for level in (3, 4, 5, 6, 7):
        stride = 2**level
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                for octave in (0, 1, 2):
                    for ratio in (1.0, 2.0, 0.5):
                        side = 4 * stride * 2 ** (octave / 3)
                        h, w = side / math.sqrt(ratio), side * math.sqrt(ratio)
                        y, x = (row + 0.5) * stride, (column + 0.5) * stride
                        found.append((y - h / 2, x - w / 2, y + h / 2, x + w / 2))
    return np.array(found)


@pytest.mark.parametrize("size", [(128, 128), (128, 256), (256, 128)], ids=str)
def test_anchors_are_the_loops(size):
    received = anchor_boxes(size)
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, loops(*size), rtol=1e-5, atol=1e-4)


def test_first_anchor_by_hand():
    """Level 3: a square of 4 strides of 8 around the middle of the first 8 x 8 pixels."""
    np.testing.assert_array_equal(anchor_boxes((128, 128))[0], [-12, -12, 20, 20])


def test_d0_has_49104_at_512():
    """64**2 + 32**2 + 16**2 + 8**2 + 4**2 places with 9 each, as google/automl has them."""
    assert anchor_boxes((512, 512)).shape == (49104, 4)


def test_a_place_has_as_many_as_the_heads_give():
    assert Anchors().per_place == ANCHORS


def test_areas_of_a_place_depend_on_the_octave_alone():
    boxes = anchor_boxes((128, 128))[:9]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).reshape(3, 3)
    np.testing.assert_allclose(areas, np.outer([1, 2 ** (2 / 3), 2 ** (4 / 3)], [32 * 32] * 3), rtol=1e-5)


def test_a_layout_of_ones_own():
    layout = Anchors(levels=(5,), octaves=1, ratios=(1.0, 4.0), scale=2.0)
    expected = [[-16, -16, 48, 48], [0, -48, 32, 80]]
    np.testing.assert_allclose(anchor_boxes((32, 32), layout), expected, atol=1e-4)
