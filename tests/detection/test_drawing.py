"""Drawing: lines lie where the boxes are, labels inside the image; classes have colours of their own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfqat.detection.drawing import color_of, drawn
from tfqat.detection.nms import Detections

NAMES = ("cat", "dog")


def of(boxes, scores=None, classes=None):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([0.9] * count if scores is None else scores, np.float32),
        np.array([0] * count if classes is None else classes, np.int32),
    )


def test_the_sides_of_a_box_and_nothing_inside_it():
    picture = np.asarray(drawn(Image.new("RGB", (200, 150), "white"), of([(60, 40, 120, 160)]), NAMES))
    color = np.array(color_of(0))
    for rows, columns in ((60, slice(40, 161)), (120, slice(40, 161)), (slice(60, 121), 40), (slice(60, 121), 160)):
        assert (picture[rows, columns] == color).all()
    assert (picture[62:119, 42:159] == 255).all()
    assert (picture[122:] == 255).all()
    label = picture[:60]  # above the box
    assert (label == color).all(2).sum() > 50
    assert ((label > 200).all(2) & (np.arange(200) > 40) & (np.arange(200) < 100)).any(), "white letters"


def test_lines_are_thicker_in_large_images():
    picture = np.asarray(drawn(Image.new("RGB", (1200, 900), "white"), of([(300, 300, 600, 700)]), NAMES))
    changed = (picture[450] != 255).any(1)
    assert changed.sum() == 2 * 4


# Boxes at the edges, of no size, and larger than the image, of 60 x 80 pixels; the labels are inside.
EDGES = {
    "upper_left": (0, 0, 30, 30),
    "lower_right": (40, 60, 60, 80),
    "whole": (0, 0, 60, 80),
    "point": (30, 30, 30, 30),
    "line": (10, 70, 50, 70),
    "corner": (60, 80, 60, 80),
}


@pytest.mark.parametrize("box", EDGES.values(), ids=EDGES)
def test_boxes_at_the_edge(box):
    before = Image.new("RGB", (80, 60), "white")
    picture = np.asarray(drawn(before, of([box]), NAMES))
    assert picture.shape == (60, 80, 3)
    assert (np.asarray(before) == 255).all(), "the image given stays as it was"
    _, left, bottom, right = box
    seen = (picture == color_of(0)).all(2)
    assert seen[:, min(right, 79)].any()
    assert seen[min(bottom, 59)].any()
    assert seen[:, min(left, 79)].any()
    assert seen.sum() > 60, "the label's ground"


def test_the_best_box_lies_on_top():
    """Of the same place: what is drawn last is seen."""
    same = (20, 20, 50, 70)
    for classes in ((0, 1), (1, 0)):
        picture = np.asarray(drawn(Image.new("RGB", (80, 60)), of([same, same], [0.9, 0.4], classes), NAMES))
        assert (picture[35, 20] == color_of(classes[0])).all()


def test_nothing_found():
    picture = drawn(Image.new("L", (40, 30), 77), of([]), NAMES)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    assert (np.asarray(picture) == 77).all()


def test_colours_differ():
    colors = np.array([color_of(label) for label in range(12)])
    apart = np.abs(colors[:, None] - colors[None]).max(2) + 255 * np.eye(12)
    assert apart.min() > 20
