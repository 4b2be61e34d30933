"""Suppression, against a plain loop and TensorFlow's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.detection.nms import suppress

few = settings(deadline=None, max_examples=60)


def overlap(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union


def loop(boxes, scores, iou_threshold, score_threshold, top):
    """One class after the other, one box after the other; then the best of all."""
    found = []
    for cls in range(scores.shape[1]):
        kept = []
        for anchor in sorted(range(len(boxes)), key=lambda k: (-scores[k, cls], k)):
            if scores[anchor, cls] < score_threshold:
                continue
            if all(overlap(boxes[anchor], boxes[other]) <= iou_threshold for other in kept):
                kept.append(anchor)
        found += [(-scores[anchor, cls], anchor, cls) for anchor in kept]
    return [(anchor, cls) for _, anchor, cls in sorted(found)[:top]]


def crowd(seed, count=30, classes=3):
    generator = np.random.default_rng(seed)
    starts, sides = generator.uniform(0, 40, (count, 2)), generator.uniform(5, 30, (count, 2))
    boxes = np.concatenate([starts, starts + sides], axis=1).astype(np.float32)
    return boxes, generator.uniform(0, 1, (count, classes)).astype(np.float32)


@few
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.7]), st.sampled_from([0.0, 0.3]), st.sampled_from([5, 100]))
def test_suppression_is_the_loop(seed, iou_threshold, score_threshold, top):
    boxes, scores = crowd(seed)
    expected = loop(boxes, scores, iou_threshold, score_threshold, top)
    received = suppress(boxes, scores, iou_threshold, score_threshold, top)
    np.testing.assert_array_equal(received.classes, [cls for _, cls in expected])
    np.testing.assert_array_equal(received.boxes, boxes[[anchor for anchor, _ in expected]])
    np.testing.assert_array_equal(received.scores, [scores[place] for place in expected])


@pytest.mark.parametrize("seed", range(5))
def test_one_class_is_tensorflows(seed):
    import tensorflow as tf

    boxes, scores = crowd(seed, count=200, classes=1)
    places = tf.image.non_max_suppression(boxes, scores[:, 0], 50, 0.5, 0.1).numpy()
    received = suppress(boxes, scores, 0.5, 0.1, 50)
    np.testing.assert_array_equal(received.boxes, boxes[places])
    np.testing.assert_array_equal(received.scores, scores[places, 0])


@few
@given(st.integers(0, 10**6))
def test_what_stays_stays(seed):
    """Suppression of its own result takes nothing away; no two of a class overlap too much; scores fall."""
    once = suppress(*crowd(seed), iou_threshold=0.4)
    scores = np.zeros((len(once.boxes), 3), np.float32)
    scores[np.arange(len(once.boxes)), once.classes] = once.scores
    again = suppress(once.boxes, scores, iou_threshold=0.4, score_threshold=1e-6)
    np.testing.assert_array_equal(again.boxes, once.boxes)
    assert (np.diff(once.scores) <= 0).all()
    for cls in range(3):
        boxes = once.boxes[once.classes == cls]
        assert all(overlap(a, b) <= 0.4 for n, a in enumerate(boxes) for b in boxes[:n])


def test_classes_do_not_suppress_each_other():
    boxes = np.array([[0, 0, 10, 10]] * 2, np.float32)
    received = suppress(boxes, np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), score_threshold=0.15)
    assert list(zip(received.classes, received.scores, strict=True)) == [(0, np.float32(0.9)), (1, np.float32(0.8))]


def test_of_equal_scores_the_earlier_box_stays():
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10]], np.float32)
    received = suppress(boxes, np.full((2, 1), 0.5, np.float32))
    np.testing.assert_array_equal(received.boxes, boxes[:1])


def test_only_the_highest_candidates_are_looked_at():
    boxes, scores = crowd(0)
    received = suppress(boxes, scores, 1.0, candidates=7)
    np.testing.assert_array_equal(received.scores, np.sort(scores.ravel())[::-1][:7])


@pytest.mark.parametrize(("count", "threshold"), [(0, 0.0), (4, 2.0)])
def test_nothing_found_is_empty(count, threshold):
    boxes, scores = crowd(0, count=count)
    received = suppress(boxes, scores, score_threshold=threshold)
    assert (received.boxes.shape, received.scores.shape, received.classes.shape) == ((0, 4), (0,), (0,))
