"""Datasets from the user's own function, right and wrong."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from tfqat.data import input_shape, load
from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.spec.datasets import Python

IMAGES = np.arange(12 * 4 * 4, dtype=np.float32).reshape(12, 4, 4, 1)
LABELS = np.arange(12) % 3


def dataset(images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)


def shuffled():
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(12).batch(4)


def by_epoch(epoch):
    order = tf.random.experimental.stateless_shuffle(tf.range(12), tf.stack([tf.cast(9, tf.int64), epoch]))
    pick = lambda index: (tf.gather(IMAGES, index), tf.gather(LABELS, index))  # noqa: E731
    return tf.data.Dataset.from_tensor_slices(order).map(pick).batch(4)


def unlabeled():
    return tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)


FUNCTIONS = {
    "as_dict": lambda: {"train": dataset(), "validation": dataset(), "calibration": dataset(IMAGES + 1)},
    "as_tuple": lambda: (dataset(), dataset()),
    "shuffled": lambda: {"train": shuffled(), "validation": dataset()},
    "by_epoch": lambda: {"train": by_epoch, "validation": dataset()},
    "unknown_count": lambda: (dataset().filter(lambda x, y: True), dataset()),
    "a_number": lambda: 3,
    "no_validation": lambda: {"train": dataset()},
    "extra_key": lambda: {"train": dataset(), "validation": dataset(), "test": dataset()},
    "arrays": lambda: (IMAGES, LABELS),
    "no_labels": lambda: (unlabeled(), unlabeled()),
    "float_labels": lambda: (dataset(labels=LABELS.astype(np.float32)), dataset()),
    "endless": lambda: (dataset().repeat(), dataset()),
    "empty": lambda: (dataset().take(0), dataset()),
    "flat": lambda: (dataset(images=IMAGES.reshape(12, 16)), dataset()),
    "huge_label": lambda: (dataset(labels=np.where(LABELS == 1, 2**32 + 1, LABELS)), dataset()),
    "wrong_label": lambda: (dataset(labels=LABELS + 1), dataset()),
}


@pytest.fixture(autouse=True)
def user_module(monkeypatch):
    module = ModuleType("users_data")
    vars(module).update(FUNCTIONS)
    monkeypatch.setitem(sys.modules, "users_data", module)
    return module


def loaded(name, seed=0):
    return load(Python(kind="python", function=f"users_data:{name}"), seed, num_classes=3)


def labels(stream):
    return np.concatenate([y.numpy() for _, y in stream])


@pytest.mark.parametrize("name", ["as_dict", "as_tuple", "unknown_count"])
def test_dict_and_tuple(name):
    data = loaded(name)
    assert data.steps == 3
    assert data.input_shape == (4, 4, 1)
    np.testing.assert_array_equal(labels(data.validation), LABELS)
    first = next(iter(data.calibration))[0].numpy()
    np.testing.assert_array_equal(first, IMAGES[:4] + (name == "as_dict"))


@pytest.mark.parametrize("name", ["shuffled", "by_epoch"])
def test_an_epoch_is_the_same_whenever_it_is_run(name):
    whole = labels(loaded(name).train_from(0).take(12))
    later = labels(loaded(name).train(3))
    np.testing.assert_array_equal(whole[36:48], later)
    assert (whole[:12] != whole[12:24]).any()


def test_a_function_that_has_an_argument_seed_is_given_it(user_module):
    user_module.seeded = lambda seed: (dataset(), dataset().take(seed))
    assert len(labels(loaded("seeded", seed=2).validation)) == 8


def test_input_shape():
    assert input_shape(Python(kind="python", function="users_data:as_dict")) == (4, 4, 1)


WRONG = {
    "a_number": "must return a dict.*returned int",
    "no_validation": r"returned the keys \['train'\]",
    "extra_key": r"returned the keys .*'test'",
    "arrays": "its train is of type ndarray",
    "no_labels": r"expected batches of \(images, labels\)",
    "float_labels": "expected integer labels",
    "endless": r"endless. Limit an epoch with \.take",
    "empty": "training dataset is empty",
    "flat": "expected images",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_returns(name):
    with pytest.raises(TfqatError, match=WRONG[name]):
        loaded(name)


@pytest.mark.parametrize(("name", "range_"), [("wrong_label", "1 to 3"), ("huge_label", "0 to 4294967297")])
def test_a_label_out_of_range_stops_with_its_reason(name, range_):
    with pytest.raises(TfqatError, match=f"expected 0 to 2, received {range_}"), batches_explained():
        labels(loaded(name).train(0))


def test_other_errors_of_tensorflow_pass_unchanged():
    with pytest.raises(tf.errors.InvalidArgumentError), batches_explained():
        tf.reshape(tf.zeros(3), (2, 2))


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_such_module:f", "cannot import 'no_such_module'"), ("users_data:none", "has no function 'none'")],
)
def test_functions_that_are_not_there(name, message):
    with pytest.raises(TfqatError, match=message):
        load(Python(kind="python", function=name), 0)
