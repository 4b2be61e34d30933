"""The embedded digits: split, scale, and epochs that depend on seed and number alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfqat.data import input_shape, load
from tfqat.errors import TfqatError
from tfqat.spec.datasets import Digits

SPEC = Digits(kind="digits", image_size=16, batch_size=64)


def arrays(dataset):
    images, labels = zip(*[(x.numpy(), y.numpy()) for x, y in dataset], strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_a_third_is_held_out_with_all_classes_in_proportion():
    images, labels = arrays(load(SPEC, seed=1).validation)
    assert images.shape == (599, 16, 16, 1)
    assert images.dtype == np.float32
    expected = np.bincount(load_digits().target) / 3
    assert np.abs(np.bincount(labels) - expected).max() <= 1
    assert images.min() >= 0
    assert 0.9 < images.max() <= 1


def test_the_split_does_not_depend_on_the_seed_and_the_order_does():
    one, two = load(SPEC, seed=1), load(SPEC, seed=2)
    np.testing.assert_array_equal(arrays(one.validation)[0], arrays(two.validation)[0])
    assert (arrays(one.train(0))[1] != arrays(two.train(0))[1]).any()


def test_no_test_image_is_trained_on():
    data = load(Digits(kind="digits", image_size=8, batch_size=1), seed=0)
    held = {image.tobytes() for image in arrays(data.validation)[0]}
    trained = {image.tobytes() for image in arrays(data.train(0))[0]}
    assert len(trained) == 1797 - 599
    assert not held & trained


def test_an_epoch_is_the_same_whenever_it_is_run():
    data = load(SPEC, seed=5)
    third = arrays(data.train(3))
    inside = arrays(data.train_from(1).skip(2 * data.steps).take(data.steps))
    np.testing.assert_array_equal(third[0], inside[0])
    np.testing.assert_array_equal(third[1], inside[1])
    assert (arrays(data.train(4))[1] != third[1]).any()


def test_steps_are_whole_batches():
    data = load(SPEC, seed=5)
    assert data.steps == 1198 // 64
    assert {len(labels) for _, labels in data.train(0)} == {64}


def test_too_few_classes_is_an_error():
    with pytest.raises(TfqatError, match=r"expected 0 to 7, received [89].*num_classes to 10"):
        load(SPEC, seed=0, num_classes=8)


def test_input_shape():
    assert input_shape(SPEC) == load(SPEC, seed=0).input_shape == (16, 16, 1)
