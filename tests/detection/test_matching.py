"""Which object each anchor learns, against loops written out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.detection.anchors import anchor_boxes
from tfqat.detection.boxes import decode
from tfqat.detection.matching import IGNORED, NOTHING, match, targets

few = settings(deadline=None, max_examples=40)
ANCHORS = anchor_boxes((128, 128))[::37]
NUMBER, SIDE = st.floats(0, 120, width=32), st.floats(2, 90, width=32)
BOXES = st.lists(st.tuples(NUMBER, NUMBER, SIDE, SIDE), max_size=5).map(
    lambda found: np.array([(y, x, y + h, x + w) for y, x, h, w in found], np.float32).reshape(-1, 4)
)


def overlap(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def loops(anchors, boxes, positive, negative, force):
    """Without numpy's tricks; None where two overlaps are too close to tell in float32."""
    table = [[overlap(anchor, box) for box in boxes] for anchor in anchors]
    found = []
    for row in table:
        best = max(row, default=0.0)
        if any(abs(best - edge) < 1e-5 for edge in (positive, negative)):
            return None
        if sum(best - value < 1e-5 for value in row) > 1 and best > 0:
            return None
        found.append(row.index(best) if row and best >= positive else NOTHING if best < negative else IGNORED)
    if not force:
        return found
    wishes = []
    for index in range(len(boxes)):
        column = [row[index] for row in table]
        most = max(column)
        if sum(most - value < 1e-5 for value in column) > 1 and most > 0:
            return None
        if most > 0:
            wishes.append((most, index, column.index(most)))
    if any(abs(a[0] - b[0]) < 1e-5 for a in wishes for b in wishes if a[1] < b[1] and a[2] == b[2]):
        return None
    for anchor in {wish[2] for wish in wishes}:
        found[anchor] = max(wish for wish in wishes if wish[2] == anchor)[1]
    return found


@few
@given(BOXES, st.sampled_from([(0.5, 0.5), (0.5, 0.4), (0.7, 0.3)]), st.booleans())
def test_matching_is_the_loops(boxes, thresholds, force):
    expected = loops(ANCHORS, boxes, *thresholds, force)
    if expected is not None:
        np.testing.assert_array_equal(match(ANCHORS, boxes, *thresholds, force), expected)


@pytest.mark.parametrize("force", [False, True])
def test_the_loops_decide_on_usual_boxes(force):
    """So that the property above compares something."""
    boxes = np.array([[10, 12, 50, 47], [60, 3, 121, 64], [70, 70, 80, 79]], np.float32)
    expected = loops(ANCHORS, boxes, 0.5, 0.4, force)
    assert expected is not None
    assert set(expected) >= {NOTHING, IGNORED, 1}
    np.testing.assert_array_equal(match(ANCHORS, boxes, 0.5, 0.4, force), expected)


def test_thresholds_by_hand():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 3]], np.float32)
    box = np.array([[0, 0, 10, 10]], np.float32)  # overlaps of 1, 0.5, 0.4 and 0.3
    np.testing.assert_array_equal(match(anchors, box, 0.5, 0.35), [0, 0, IGNORED, NOTHING])


def test_an_object_that_no_anchor_fits_gets_the_best_one_if_forced():
    anchors = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    box = np.array([[22, 22, 24, 24]], np.float32)
    np.testing.assert_array_equal(match(anchors, box), [NOTHING, 0])
    np.testing.assert_array_equal(match(anchors, box, force=False), [NOTHING, NOTHING])
    np.testing.assert_array_equal(match(anchors, box + 500), [NOTHING, NOTHING])


def test_of_two_objects_that_want_one_anchor_the_nearer_gets_it():
    anchors = np.array([[0, 0, 10, 10]], np.float32)
    boxes = np.array([[0, 0, 9, 9], [0, 0, 4, 4]], np.float32)
    np.testing.assert_array_equal(match(anchors, boxes), [0])
    np.testing.assert_array_equal(match(anchors, boxes[::-1]), [1])


@few
@given(BOXES)
def test_targets_decode_to_the_objects(boxes):
    classes = np.arange(len(boxes), dtype=np.int32) * 3
    learnt, codes = map(np.asarray, targets(ANCHORS, boxes, classes))
    matched = np.asarray(match(ANCHORS, boxes))
    has = matched >= 0
    assert learnt.dtype == np.int32
    np.testing.assert_array_equal(learnt[has], classes[matched[has]])
    np.testing.assert_array_equal(learnt[~has], matched[~has])
    assert not codes[~has].any()
    np.testing.assert_allclose(np.asarray(decode(codes, ANCHORS))[has], boxes[matched[has]], atol=1e-2)


def test_an_image_without_objects_has_nothing_to_learn():
    learnt, codes = map(np.asarray, targets(ANCHORS, np.zeros((0, 4)), np.zeros(0, int)))
    assert (learnt == NOTHING).all()
    assert codes.shape == (len(ANCHORS), 4)
    assert not codes.any()


@few
@given(BOXES, st.integers(1, 3), st.booleans())
def test_padding_changes_nothing(boxes, padding, tensors):
    classes = np.arange(len(boxes), dtype=np.int32)
    expected = targets(ANCHORS, boxes, classes)
    padded = np.concatenate([np.zeros((padding, 4), np.float32), boxes])
    given = padded, np.concatenate([np.full(padding, NOTHING, np.int32), classes])
    found = targets(ANCHORS, *(map(keras.ops.convert_to_tensor, given) if tensors else given))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_crowd_is_neither_learnt_nor_background():
    anchors = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [0, 20, 10, 30]], np.float32)
    boxes = np.array([[0, 0, 10, 9], [20, 20, 30, 29], [0, 0, 10, 10]], np.float32)
    crowd = np.array([True, False, False])
    learnt, codes = map(np.asarray, targets(anchors, boxes, np.array([1, 1, 2]), crowd=crowd))
    np.testing.assert_array_equal(learnt, [2, 1, NOTHING])
    learnt, codes = map(np.asarray, targets(anchors, boxes[:2], np.array([1, 1]), crowd=crowd[:2]))
    np.testing.assert_array_equal(learnt, [IGNORED, 1, NOTHING])
    assert not codes[[0, 2]].any()


@pytest.mark.parametrize(("positive", "negative"), [(0.4, 0.5), (1.5, 0.5), (0.5, -0.1)])
def test_thresholds_in_the_wrong_order_are_an_error(positive, negative):
    with pytest.raises(ValueError, match=f"negative {negative} and positive {positive}"):
        match(ANCHORS, ANCHORS[:1], positive, negative)
