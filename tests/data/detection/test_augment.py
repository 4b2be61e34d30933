"""Augment: each change against numpy written out, and what must hold for any image, boxes and draw."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.data.detection.augment import Augment, augmented, colored, fitting, flipped, placed, visible

SIDES = st.integers(1, 90)
SEEDS = st.integers(0, 2**31)
EXAMPLES = settings(max_examples=40, deadline=None)


def picture(height, width, seed):
    """Noise, and boxes within it at quarters of a pixel, so that float32 differences are exact."""
    random = np.random.default_rng(seed)
    image = random.uniform(0, 255, (height, width, 3)).astype(np.float32)
    corners = np.sort(random.integers(0, 4 * np.array([height, width]) + 1, (6, 2, 2)), axis=1) / 4
    return image, corners.reshape(6, 4).astype(np.float32)


@EXAMPLES
@given(SIDES, SIDES, SEEDS)
def test_flip_is_numpy_s_and_twice_is_identity(height, width, seed):
    image, boxes = picture(height, width, seed)
    once = flipped(tf.constant(image), tf.constant(boxes))
    np.testing.assert_array_equal(once[0], np.fliplr(image))
    np.testing.assert_array_equal(
        once[1], np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], -1)
    )
    for twice, first in zip(flipped(*once), (image, boxes), strict=True):
        np.testing.assert_array_equal(twice, first)


@EXAMPLES
@given(SIDES, SIDES, SIDES, SIDES, st.floats(0.1, 3))
def test_fitting_keeps_the_ratio_and_touches_the_frame(height, width, rows, columns, factor):
    fit = fitting(tf.constant(height), tf.constant(width), (rows, columns), factor).numpy()
    scale = min(rows * factor / height, columns * factor / width)
    expected = np.array([height, width]) * scale
    assert (np.abs(fit - expected) <= 0.5001).all() or (fit == 1).any()
    assert (fit <= np.maximum(np.array([rows, columns]) * factor + 0.5, 1)).all()


@EXAMPLES
@given(st.integers(20, 60), st.integers(20, 60), SEEDS)
def test_a_part_at_its_own_scale_is_numpy_s_slice(height, width, seed):
    image, boxes = picture(height, width, seed)
    top, left = np.random.default_rng(seed).integers(0, 10, 2)
    size = (16, 70)
    cut, moved = placed(
        tf.constant(image), tf.constant(boxes), size, tf.constant([height, width]), tf.constant([top, left], tf.int32)
    )
    np.testing.assert_allclose(cut, image[top : top + 16, left : left + 70], atol=1e-3)
    np.testing.assert_array_equal(moved, boxes - np.float32([top, left, top, left]))


def test_scaled_boxes_are_multiplied_each_way_by_its_own_ratio():
    image, boxes = picture(30, 50, 0)
    cut, moved = placed(tf.constant(image), tf.constant(boxes), (20, 20), tf.constant([15, 75]), tf.constant([0, 8]))
    assert cut.shape == (15, 20, 3)
    np.testing.assert_allclose(moved, boxes * np.float32([0.5, 1.5, 0.5, 1.5]) - np.float32([0, 8, 0, 8]), rtol=1e-6)


@EXAMPLES
@given(SEEDS, st.floats(0, 1))
def test_what_is_visible_is_what_the_option_says(seed, least):
    random = np.random.default_rng(seed)
    boxes = np.sort(random.integers(-20, 60, (8, 2, 2)), axis=1).reshape(8, 4).astype(np.float32)
    clipped, stays = visible(tf.constant(boxes), tf.constant([32, 40]), least)
    for box, now, kept in zip(boxes, clipped.numpy(), stays.numpy(), strict=True):
        top, left = max(box[0], 0), max(box[1], 0)
        bottom, right = min(box[2], 32), min(box[3], 40)
        left_over = max(bottom - top, 0) * max(right - left, 0)
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert kept == (left_over > 0 and left_over >= np.float32(least) * area)
        if kept:
            assert now.tolist() == [top, left, bottom, right]


def test_color_is_numpy_s():
    image, _ = picture(8, 9, 1)
    ours = colored(tf.constant(image), *tf.constant([0.8, 1.3, 0.6])).numpy()
    bright = image * 0.8
    contrast = bright.mean() + (bright - bright.mean()) * 1.3
    gray = contrast @ np.array([0.299, 0.587, 0.114])
    expected = np.clip(gray[..., None] + (contrast - gray[..., None]) * 0.6, 0, 255)
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    np.testing.assert_allclose(colored(tf.constant(image), *tf.ones(3)), image, atol=1e-3)


JITTER = Augment(flip=True, scale=(0.3, 2.5), min_visible=0.25, color=0.3)


@EXAMPLES
@given(SIDES, SIDES, SEEDS)
def test_boxes_stay_inside_whatever_is_drawn(height, width, seed):
    image, boxes = picture(height, width, seed)
    changed, moved, stays = augmented(
        tf.constant(image), tf.constant(boxes), (32, 48), JITTER, tf.constant([seed, 1], tf.int64)
    )
    rows, columns = changed.shape[:2]
    assert rows <= 32
    assert columns <= 48
    kept = moved.numpy()[stays.numpy()]
    assert (kept >= 0).all()
    assert (kept <= [rows, columns] * 2).all()
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert changed.numpy().min() >= -1e-3
    assert changed.numpy().max() <= 255.001


@EXAMPLES
@given(SEEDS)
def test_a_box_stays_around_what_it_held(seed):
    """A white square on black, found again by its pixels: image and box cannot move apart."""
    top, left = np.random.default_rng(seed).integers(0, 40, 2)
    image = np.zeros((70, 60, 3), np.float32)
    image[top : top + 20, left : left + 18] = 255
    box = np.float32([[top, left, top + 20, left + 18]])
    wish = Augment(flip=True, scale=(0.8, 2.5))
    changed, moved, stays = augmented(
        tf.constant(image), tf.constant(box), (64, 64), wish, tf.constant([seed, 0], tf.int64)
    )
    rows, columns = np.nonzero(changed.numpy()[..., 0] > 127)
    if not stays.numpy()[0]:
        assert not rows.size
        return
    if min(moved[0, 2] - moved[0, 0], moved[0, 3] - moved[0, 1]) > 2:
        seen = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_allclose(moved[0], seen, atol=1.01)


def test_nothing_asked_for_changes_nothing_but_the_size():
    image, boxes = picture(40, 64, 3)
    for draw in range(4):
        same, moved, stays = augmented(
            tf.constant(image), tf.constant(boxes), (40, 64), Augment(), tf.constant([draw, 0], tf.int64)
        )
        np.testing.assert_allclose(same, image, atol=1e-3)
        np.testing.assert_array_equal(moved, boxes)
        np.testing.assert_array_equal(stays, (boxes[:, 2:] > boxes[:, :2]).all(-1))


@pytest.mark.parametrize(
    ("wish", "kinds"),
    [
        (Augment(flip=True), 2),
        (Augment(scale=(1.5, 2.0)), 10),
        (Augment(color=0.4), 12),
        (Augment(scale=(0.5, 0.9)), 6),
    ],
    ids=["flip", "larger", "color", "smaller"],
)
def test_draws_differ(wish, kinds):
    image, boxes = picture(40, 40, 5)
    draws = [
        augmented(tf.constant(image), tf.constant(boxes), (32, 32), wish, tf.constant([k, 7], tf.int64))
        for k in range(12)
    ]
    assert len({changed.numpy().tobytes() for changed, _, _ in draws}) >= kinds
