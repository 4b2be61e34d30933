"""Losses, against the formulas in numpy's doubles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.detection.anchors import anchor_boxes
from tfqat.detection.boxes import decode, encode, giou
from tfqat.detection.losses import (
    OVERLAPS,
    box_loss,
    class_loss,
    detection_loss,
    focal,
    huber,
    overlap_loss,
    positives,
)
from tfqat.detection.matching import IGNORED, NOTHING

few = settings(deadline=None, max_examples=60)
CLASSES = np.array([[0, NOTHING, 2, IGNORED], [NOTHING, 1, IGNORED, NOTHING]], np.int32)


def numbers(*shape, seed=0, size=1.0):
    return (size * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def plain_focal(hot, logit, alpha, gamma):
    p = 1 / (1 + math.exp(-logit))
    p_t, alpha_t = (p, alpha) if hot else (1 - p, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)


@few
@given(st.booleans(), st.floats(-12, 12, width=32), st.floats(0, 1), st.sampled_from([0.0, 1.0, 1.5, 2.0]))
def test_focal_is_the_formula(hot, logit, alpha, gamma):
    received = float(focal(np.float32(hot), np.float32(logit), alpha, gamma))
    assert received == pytest.approx(plain_focal(hot, logit, alpha, gamma), rel=1e-3, abs=1e-6)


def test_focal_of_gamma_0_and_alpha_a_half_is_half_the_cross_entropy():
    import keras

    logits, hot = numbers(5, 7, size=3), (numbers(5, 7, seed=1) > 0).astype(np.float32)
    expected = keras.ops.binary_crossentropy(hot, logits, from_logits=True) / 2
    np.testing.assert_allclose(focal(hot, logits, 0.5, 0.0), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5])
def test_focal_has_finite_gradients_where_the_sigmoid_is_flat(gamma):
    import tensorflow as tf

    logits = tf.Variable([-200.0, -30.0, 0.0, 30.0, 200.0])
    for hot in (0.0, 1.0):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(focal(hot * tf.ones(5), logits, gamma=gamma))
        assert np.isfinite(tape.gradient(loss, logits)).all()
        assert np.isfinite(loss)


@few
@given(st.floats(-3, 3, width=32), st.sampled_from([0.1, 1.0]))
def test_huber_is_keras_own(error, delta):
    import keras

    expected = float(keras.losses.Huber(delta, reduction="none")(np.zeros((1, 1)), np.full((1, 1), error))[0])
    assert float(huber(np.float32(error), delta)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_positives_are_one_more_than_the_anchors_with_an_object():
    assert float(positives(CLASSES)) == 4
    assert float(positives(np.full((2, 4), NOTHING))) == 1


def test_class_loss_is_the_loops():
    logits = numbers(2, 4, 3, size=2)
    total = 0.0
    for row, values in zip(CLASSES, logits, strict=True):
        for cls, anchor in zip(row, values, strict=True):
            if cls != IGNORED:
                total += sum(plain_focal(cls == k, float(v), 0.25, 1.5) for k, v in enumerate(anchor))
    assert float(class_loss(CLASSES, logits)) == pytest.approx(total / 4, rel=1e-5)


def test_box_loss_is_the_loops():
    codes, regression = numbers(2, 4, 4), numbers(2, 4, 4, seed=1)
    total = 0.0
    for image in range(2):
        for anchor in range(4):
            if CLASSES[image, anchor] >= 0:
                for error in np.abs(codes[image, anchor] - regression[image, anchor]).tolist():
                    total += error**2 / 2 if error <= 0.1 else 0.1 * (error - 0.05)
    assert float(box_loss(CLASSES, codes, regression)) == pytest.approx(total / 16, rel=1e-5)


def test_the_whole_is_the_class_loss_and_fifty_box_losses():
    logits, codes, regression = numbers(2, 4, 3), numbers(2, 4, 4), numbers(2, 4, 4, seed=1)
    expected = float(class_loss(CLASSES, logits)) + 50 * float(box_loss(CLASSES, codes, regression))
    assert float(detection_loss(CLASSES, codes, logits, regression)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", OVERLAPS)
def test_overlap_losses_are_of_the_decoded_boxes_with_an_object(kind):
    anchors = anchor_boxes((128, 128))[1000:1004]
    codes, regression = numbers(2, 4, 4, size=0.2), numbers(2, 4, 4, seed=1, size=0.2)
    has = CLASSES >= 0
    boxes = [np.asarray(decode(c, anchors))[has] for c in (codes, regression)]
    expected = np.sum(1 - np.asarray(OVERLAPS[kind](*boxes))) / 4
    assert float(overlap_loss(CLASSES, codes, regression, anchors, kind)) == pytest.approx(expected, rel=1e-4)
    assert float(overlap_loss(CLASSES, codes, codes, anchors, kind)) == pytest.approx(0, abs=1e-4)


def test_giou_loss_knows_how_far_apart_boxes_are():
    anchors = np.array([[0, 0, 8, 8]], np.float32)
    near, far = (np.asarray(encode(anchors + shift, anchors))[None] for shift in (10, 40))
    classes, codes = np.zeros((1, 1), np.int32), np.zeros((1, 1, 4), np.float32)
    losses = [float(overlap_loss(classes, codes, given, anchors, "giou")) for given in (near, far)]
    assert losses[0] < losses[1]
    assert losses[0] == pytest.approx((1 - float(giou(anchors, anchors + 10)[0])) / 2, rel=1e-5)


def test_a_batch_without_objects_has_finite_losses():
    nothing = np.full((2, 4), NOTHING, np.int32)
    assert float(box_loss(nothing, numbers(2, 4, 4), numbers(2, 4, 4, seed=1))) == 0
    assert 0 < float(class_loss(nothing, numbers(2, 4, 3))) < math.inf


def test_another_overlap_is_an_error():
    with pytest.raises(ValueError, match="one of iou, giou, diou, ciou, received 'siou'"):
        overlap_loss(CLASSES, numbers(2, 4, 4), numbers(2, 4, 4), anchor_boxes((128, 128))[:4], "siou")
