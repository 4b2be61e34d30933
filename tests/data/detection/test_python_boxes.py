"""Boxes from the user's own function, right and wrong; what a detector makes of them."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from tfqat.data import load
from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.spec.datasets import Python
from tfqat.spec.schema import Spec
from tfqat.tasks import task_of

IMAGES = np.arange(3 * 128 * 256 * 3, dtype=np.uint8).reshape(3, 128, 256, 3)
BOXES = np.array(
    [[[4, 8, 60, 100], [0, 0, 128, 256]], [[20, 30, 90, 120], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], np.float32
)
CLASSES = np.array([[1, 0], [2, -1], [-1, -1]])
TARGETS = {"boxes": BOXES, "classes": CLASSES}
SIZE = np.array([[256, 1024]] * 3)
SCALE = np.array([[0.5, 0.25]] * 3)
CROWD = np.array([[False, True], [False, True], [True, True]])


def dataset(changes=None, images=IMAGES, batch=2):
    targets = {key: value for key, value in (TARGETS | (changes or {})).items() if value is not None}
    return tf.data.Dataset.from_tensor_slices((images, targets)).batch(batch)


def open_rows():
    """Each batch has as many rows as its fullest image, and the last none at all."""
    rows = [(IMAGES[k], {"boxes": BOXES[k, :n], "classes": CLASSES[k, :n]}) for k, n in enumerate((2, 1, 0))]
    shapes = {"boxes": tf.TensorSpec((None, 4), tf.float32), "classes": tf.TensorSpec((None,), tf.int64)}
    signature = (tf.TensorSpec((128, 256, 3), tf.uint8), shapes)
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature).padded_batch(
        2, padding_values=(None, {"boxes": 0.0, "classes": np.int64(-1)})
    )


def undeclared():
    types = (tf.uint8, {"boxes": tf.float32, "classes": tf.int64})
    return tf.data.Dataset.from_generator(lambda: iter([(IMAGES, TARGETS)]), output_types=types)


@pytest.fixture
def made(monkeypatch):
    """Data of a function that returns this dataset, for training and validation."""

    def make(part, num_classes=3):
        module = ModuleType("users_boxes")
        module.parts = lambda: (part, part)
        monkeypatch.setitem(sys.modules, "users_boxes", module)
        section = Python(kind="python", function="users_boxes:parts", targets="boxes")
        return load(section, 0, num_classes)

    return make


def joined(stream):
    batches = [{"images": images, **targets} for images, targets in stream]
    return {key: np.concatenate([batch[key].numpy() for batch in batches]) for key in batches[0]}


def test_what_is_not_given_is_the_input_itself(made):
    data = made(dataset())
    found = joined(data.validation)
    assert (data.steps, data.num_classes, data.input_shape) == (2, 3, (128, 256, 3))
    np.testing.assert_array_equal(found["images"], IMAGES.astype(np.float32))
    np.testing.assert_array_equal(found["boxes"], BOXES)
    np.testing.assert_array_equal(found["classes"], CLASSES)
    assert not found["crowd"].any()
    assert found["areas"].tolist() == [[56 * 92, 128 * 256], [70 * 90, 0], [0, 0]]
    assert found["size"].tolist() == [[128, 256]] * 3
    assert (found["scale"] == 1).all()
    kinds = {key: value.dtype.name for key, value in found.items()}
    floats = dict.fromkeys(("images", "boxes", "areas", "size", "scale"), "float32")
    assert kinds == {**floats, "classes": "int32", "crowd": "bool"}


def test_areas_are_those_of_the_images_own_pixels(made):
    found = joined(made(dataset({"size": SIZE, "scale": SCALE, "crowd": CROWD})).validation)
    assert found["areas"].tolist() == [[56 * 92 * 8, 128 * 256 * 8], [70 * 90 * 8, 0], [0, 0]]
    np.testing.assert_array_equal(found["size"], SIZE)
    np.testing.assert_array_equal(found["scale"], SCALE)
    assert found["crowd"].tolist() == [[False, True], [False, False], [False, False]]  # none in padding
    own = joined(made(dataset({"areas": np.full((3, 2), 7)})).validation)
    assert own["areas"].tolist() == [[7, 7], [7, 0], [0, 0]]


def test_padding_may_hold_anything(made):
    dirty = np.where(CLASSES[..., None] < 0, np.nan, BOXES)
    found = joined(made(dataset({"boxes": dirty, "areas": np.where(CLASSES < 0, -1.0, 5.0)})).validation)
    np.testing.assert_array_equal(found["boxes"], BOXES)
    assert found["areas"].tolist() == [[5, 5], [5, 0], [0, 0]]


SPEC = {
    "results_dir": "unused",
    "dataset_config": {"kind": "python", "function": "users_boxes:parts", "targets": "boxes"},
    "model_config": {"architecture": "efficientdet_d0", "num_classes": 3},
    "training_config": {"float_epochs": 1},
}


def test_a_detector_learns_the_same_of_open_rows(made):
    """Each row count is that of its batch; what the anchors learn does not depend on it."""
    detection = task_of(Spec.model_validate(SPEC))
    learnt = []
    for part in (dataset(), open_rows()):
        made(part)
        data = detection.data()
        batches = list(detection.criterion(None, data).batches(data.train(0)))
        learnt.append(
            {
                name: np.concatenate([wanted[name] for _, wanted in batches])
                for name in ("class_logits", "box_regression")
            }
        )
        assert batches[0][0].shape == (2, 128, 256, 3)
    classes = learnt[0]["class_logits"]
    assert [set(row.tolist()) for row in classes] == [{-1, 0, 1}, {-1, 2}, {-1}]
    for name in learnt[0]:
        np.testing.assert_array_equal(learnt[0][name], learnt[1][name])


def test_a_detector_is_measured_on_them(made):
    """A detector that says just what is there, in the input's pixels, has an average precision of 1."""
    detection = task_of(Spec.model_validate(SPEC))
    made(dataset({"size": SIZE * 8, "scale": SCALE / 8}))
    data = detection.data()
    meter = detection.meter(data)
    for _, targets in data.validation:
        wanted = {"class_logits": [], "box_regression": []}
        learnt = detection.criterion(None, data)._learnt(targets)
        classes = learnt["class_logits"].numpy()
        wanted["class_logits"] = np.where(classes[..., None] == np.arange(3), 9.0, -9.0)
        wanted["box_regression"] = learnt["box_regression"].numpy()[..., :4]
        meter.add([wanted["box_regression"], wanted["class_logits"]], targets)
    assert meter.figures() == {"AP50": pytest.approx(1), "AP": pytest.approx(1)}
    assert meter.truths[0].boxes[0].tolist() == [64, 256, 960, 3200]


DECLARED_WRONG = {
    "no_dict": (lambda: dataset().map(lambda x, y: (x, y["classes"])), "batches of .images, dict. with the keys boxes"),
    "no_classes": (lambda: dataset({"classes": None}), r"received the keys \['boxes'\]"),
    "unknown_key": (lambda: dataset({"labels": CLASSES}), r"received the keys \['boxes', 'classes', 'labels'\]"),
    "size_alone": (lambda: dataset({"size": SIZE}), "both of size and scale; received the keys"),
    "flat_boxes": (
        lambda: dataset({"boxes": BOXES.reshape(3, 8)}),
        r"boxes as numbers of shape \(batch, rows, 4\), received float32 of shape \(None, 8\)",
    ),
    "float_classes": (lambda: dataset({"classes": CLASSES * 1.0}), "classes as integers .* received float64"),
    "integer_crowd": (lambda: dataset({"crowd": CROWD.astype(int)}), "crowd as booleans .* received int64"),
    "text": (lambda: dataset({"areas": CLASSES.astype(str)}), "areas as numbers .* received string"),
    "odd_size": (
        lambda: dataset(images=IMAGES[:, :100]),
        "users_boxes:parts: An image of 100 x 256 .* multiples of 128",
    ),
    "undeclared": (undeclared, "received int64 of shape <unknown>.*output_signature"),
}


@pytest.mark.parametrize("name", DECLARED_WRONG)
def test_wrong_declarations(made, name):
    part, message = DECLARED_WRONG[name]
    with pytest.raises(TfqatError, match=message):
        made(part())


def first_box(*corners):
    boxes = BOXES.copy()
    boxes[1, 0] = corners
    return {"boxes": boxes}


BATCH_WRONG = {
    "class_too_high": ({"classes": CLASSES + 1}, "expected 0 to 2, and -1 in rows of padding, received -1 to 3"),
    "class_too_low": ({"classes": CLASSES - 1}, "classes out of range.*received -2 to 1"),
    "class_beyond_int32": (
        {"classes": np.where(CLASSES == 1, 2**32 + 1, CLASSES)},
        "received -1 to 4294967297.*num_classes",
    ),
    "nan": (first_box(20, np.nan, 90, 120), r"1 boxes that are not finite, the first \[20 nan 90 120\]"),
    "infinite": (first_box(20, 30, np.inf, 120), "not finite"),
    "reversed": (first_box(90, 30, 20, 120), r"1 boxes of no area, the first \[90 30 20 120\].*ymin below ymax"),
    "flat": (first_box(20, 30, 90, 30), "of no area"),
    "width_first": (first_box(30, 20, 240, 90), r"outside the image, the first \[30 20 240 90\].*Scale them"),
    "negative": (first_box(-9, 20, 90, 90), "outside the image"),
    "shares": (
        {"boxes": BOXES / [128, 256, 128, 256]},
        "3 boxes that lie within the first pixel.*model's input, not in shares",
    ),
    "area": (
        {"areas": np.full((3, 2), np.nan)},
        r"3 numbers under areas that cannot be, such as \[nan nan nan\]: expected finite",
    ),
    "scale": ({"size": SIZE, "scale": SCALE * 0}, "4 numbers under scale that cannot be"),
}


@pytest.mark.parametrize("name", BATCH_WRONG)
@pytest.mark.parametrize("stream", ["validation", "training"])
def test_a_wrong_batch_stops_with_its_reason(made, name, stream):
    changes, message = BATCH_WRONG[name]
    data = made(dataset(changes))
    with pytest.raises(TfqatError, match=f"dataset_config.function: A batch has .*{message}"), batches_explained():
        list(data.validation if stream == "validation" else data.train(0))


@pytest.mark.parametrize("corners", [(-0.5, 30, 90, 120), (20, 30, 128.9, 256.9)])
def test_rounding_may_bring_a_box_a_pixel_outside(made, corners):
    found = joined(made(dataset(first_box(*corners))).validation)
    np.testing.assert_allclose(found["boxes"][1, 0], corners)


def test_arrays_that_do_not_belong_together(made):
    short = dataset().map(lambda x, y: (x, {**y, "boxes": y["boxes"][:, :1]}))
    with pytest.raises(TfqatError, match=r"received float32 of shape \(None, 1, 4\), beside classes \(None, 2\)"):
        made(short)
    undeclared_rows = short.map(
        lambda x, y: (x, {key: tf.py_function(lambda value: value, [one], one.dtype) for key, one in y.items()})
    ).map(lambda x, y: (x, {"boxes": tf.ensure_shape(y["boxes"], (None, None, 4)), "classes": open_2d(y["classes"])}))
    with pytest.raises(TfqatError, match=r"boxes of the shape \[2 1 4\], expected \[2 2 4\]"), batches_explained():
        list(made(undeclared_rows).validation)


def open_2d(value):
    return tf.ensure_shape(value, (None, None))
