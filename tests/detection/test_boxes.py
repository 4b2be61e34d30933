"""Coding and overlaps of boxes, against plain numbers, and by what must hold for any."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.detection.boxes import area, ciou, decode, diou, encode, giou, iou, pairwise_iou

# The first call of an operation takes longer than a deadline would allow.
few = settings(deadline=None, max_examples=60)
OVERLAPS = [iou, giou, diou, ciou]
NUMBER, SIDE = st.floats(-50, 150, width=32), st.floats(0.5, 100, width=32)
BOX = st.tuples(NUMBER, NUMBER, SIDE, SIDE).map(lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]], np.float32))


def value(overlap, a, b):
    return float(overlap(np.asarray(a, np.float32), np.asarray(b, np.float32)))


def plain(a, b):
    """The four overlaps in Python's own numbers: iou, giou, diou, ciou."""
    a, b = [float(v) for v in a], [float(v) for v in b]
    h1, w1, h2, w2 = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = h1 * w1 + h2 * w2 - shared
    height, width = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    dy, dx = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    overlap = shared / union
    distance = (dy**2 + dx**2) / (height**2 + width**2)
    v = 4 / math.pi**2 * (math.atan(w2 / h2) - math.atan(w1 / h1)) ** 2
    alpha = v / (1 - overlap + v) if v else 0.0
    return (
        overlap,
        overlap - (height * width - union) / (height * width),
        overlap - distance,
        overlap - distance - alpha * v,
    )


@few
@given(BOX, BOX)
def test_decoding_undoes_encoding(box, anchor):
    received = np.asarray(decode(encode(box, anchor), anchor))
    np.testing.assert_allclose(received, box, atol=2e-4 * max(1.0, float(np.abs(np.r_[box, anchor]).max())))


def test_a_code_by_hand():
    """Half an anchor lower, a quarter to the right, as high, twice as wide."""
    anchor, box = np.array([0.0, 0, 10, 20]), np.array([5.0, -5, 15, 35])
    np.testing.assert_allclose(encode(box, anchor), [0.5, 0.25, 0, math.log(2)], rtol=1e-6)
    np.testing.assert_allclose(encode(anchor, anchor), np.zeros(4))


def test_a_wild_code_decodes_to_a_finite_box():
    boxes = np.asarray(decode(np.full((1, 4), 1e4, np.float32), np.array([[0.0, 0, 8, 8]], np.float32)))
    assert np.isfinite(boxes).all()


@few
@given(BOX, BOX)
def test_overlaps_are_the_plain_ones(a, b):
    np.testing.assert_allclose([value(f, a, b) for f in OVERLAPS], plain(a, b), atol=2e-4)


@few
@given(BOX, BOX)
def test_overlaps_are_symmetric(a, b):
    for overlap in OVERLAPS:
        assert value(overlap, a, b) == pytest.approx(value(overlap, b, a), abs=1e-5)


@few
@given(BOX, BOX)
def test_overlaps_have_bounds_and_an_order(a, b):
    values = {f.__name__: value(f, a, b) for f in OVERLAPS}
    assert 0 <= values["iou"] <= 1 + 1e-6
    assert all(-1 - 1e-5 <= values[name] <= values["iou"] + 1e-6 for name in ("giou", "diou"))
    assert values["ciou"] <= values["diou"] + 1e-6


@few
@given(BOX)
def test_a_box_overlaps_itself_wholly(a):
    for overlap in OVERLAPS:
        assert value(overlap, a, a) == pytest.approx(1, abs=1e-4)


@few
@given(BOX, BOX, st.floats(0.25, 4, width=32))
def test_overlaps_do_not_depend_on_the_unit(a, b, factor):
    for overlap in OVERLAPS:
        assert value(overlap, a * factor, b * factor) == pytest.approx(value(overlap, a, b), abs=1e-3)


def test_overlaps_by_hand():
    """Two squares of 2 that share one of 1; then two apart, of which only the other three know how far."""
    a, b, far, farther = [0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 2], [14, 0, 16, 2]
    assert value(iou, a, b) == pytest.approx(1 / 7)
    assert value(giou, a, b) == pytest.approx(1 / 7 - 2 / 9)
    assert value(diou, a, b) == pytest.approx(1 / 7 - 2 / 18)
    assert value(iou, a, far) == value(iou, a, farther) == 0
    for overlap in (giou, diou, ciou):
        assert value(overlap, a, farther) < value(overlap, a, far) < 0


def test_boxes_without_an_area_overlap_nothing_and_stay_finite():
    flat, point, turned = [3, 3, 3, 9], [3, 3, 3, 3], [9, 9, 3, 3]
    for a in (flat, point, turned):
        assert float(area(np.array(a, np.float32))) == 0
        for b in (flat, point, [0, 0, 5, 5]):
            assert value(iou, a, b) == 0
            assert all(math.isfinite(value(f, a, b)) for f in OVERLAPS)


def test_pairwise_is_each_with_each():
    generator = np.random.default_rng(0)
    starts, sides = generator.uniform(0, 50, (9, 2)), generator.uniform(1, 40, (9, 2))
    boxes = np.concatenate([starts, starts + sides], axis=1).astype(np.float32)
    received = np.asarray(pairwise_iou(boxes[:5], boxes[5:]))
    expected = [[plain(a, b)[0] for b in boxes[5:]] for a in boxes[:5]]
    np.testing.assert_allclose(received, expected, atol=1e-6)


@pytest.mark.parametrize("overlap", OVERLAPS, ids=lambda f: f.__name__)
def test_a_step_up_the_gradient_overlaps_more(overlap):
    import tensorflow as tf

    wanted = tf.constant([[0.0, 0, 10, 20]])
    box = tf.Variable([[2.0, 3, 9, 15]])
    with tf.GradientTape() as tape:
        before = overlap(box, wanted)
    gradient = tape.gradient(before, box)
    assert np.isfinite(gradient).all()
    assert float(overlap(box + 0.1 * gradient, wanted)[0]) > float(before[0])


def test_ciou_leaves_alpha_without_a_gradient():
    """The gradient by the width, by differences with alpha held."""
    import tensorflow as tf

    wanted, box = np.array([0.0, 0, 10, 20]), np.array([1.0, 2, 9, 12])
    overlap, _, _, whole = plain(box, wanted)
    v = lambda b: 4 / math.pi**2 * (math.atan(2) - math.atan((b[3] - b[1]) / (b[2] - b[0]))) ** 2  # noqa: E731
    alpha = v(box) / (1 - overlap + v(box))
    assert whole == pytest.approx(plain(box, wanted)[2] - alpha * v(box))
    held = lambda b: plain(b, wanted)[2] - alpha * v(b)  # noqa: E731
    step = np.array([0, 0, 0, 1e-4])
    tensor = tf.Variable(box.astype(np.float32))
    with tf.GradientTape() as tape:
        received = ciou(tensor, tf.constant(wanted, tf.float32))
    assert float(tape.gradient(received, tensor)[3]) == pytest.approx(
        (held(box + step) - held(box - step)) / 2e-4, rel=1e-3
    )


def test_they_run_inside_a_keras_function():
    a, b = keras.Input((5, 4)), keras.Input((5, 4))
    model = keras.Model([a, b], [f(a, b) for f in OVERLAPS])
    boxes = np.array([[[0, 0, 2, 2]] * 5], np.float32)
    assert all(np.allclose(found, 1, atol=1e-4) for found in model([boxes, boxes]))
