"""Detection: what anchors learn, the losses and the figures, each against numpy or the functions they are made of."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfqat.data.image_files import Prepared
from tfqat.data.pipeline import HeldOut
from tfqat.detection import losses
from tfqat.detection.mean_ap import mean_ap
from tfqat.detection.nms import Detections, suppress
from tfqat.errors import TfqatError
from tfqat.spec.schema import Detection as Section
from tfqat.spec.schema import Spec
from tfqat.tasks import task_of
from tfqat.tasks.detection.criterion import DetectionCriterion
from tfqat.tasks.detection.decoder import Decoder
from tfqat.tasks.detection.meter import DetectionMeter, Truth
from tfqat.tasks.detection.outputs import check_outputs
from tfqat.verification.model_file import ModelFileError

NAMES = ("cat", "dog", "owl")
# Of each image (box, class, crowd); no two overlaps of an anchor are equal.
OBJECTS = [
    [((10, 12, 50, 47), 0, False), ((60.5, 3, 121, 64), 2, False), ((70, 71.3, 80, 79), 1, False)],
    [((5, 5, 90, 120), 1, True), ((30, 31, 62, 66.5), 0, False)],
    [],
    [((0, 64.2, 33, 128), 2, False)],
]


def section(**keys):
    return Section(**keys)


def criterion(scenes, settings, size=(128, 128)):
    decoder = Decoder(scenes.ANCHORS, settings.iou_threshold, settings.score_threshold, settings.max_detections)
    return DetectionCriterion(settings, size, scenes.ANCHORS, lambda: DetectionMeter(decoder, NAMES))


def written_out(scenes, image, positive, negative):
    """Class and code of each anchor, anchor by anchor."""
    learnt = [entry for entry in image if not entry[2]]
    crowds = [entry for entry in image if entry[2]]
    classes, codes = np.full(len(scenes.ANCHORS), -1), np.zeros((len(scenes.ANCHORS), 4))
    owner = np.full(len(scenes.ANCHORS), -1)
    best = np.zeros(len(scenes.ANCHORS))
    for place, anchor in enumerate(scenes.ANCHORS):
        for number, (box, _, _) in enumerate(learnt):
            overlap = scenes.overlaps(box, anchor[None])[0]
            if overlap > best[place]:
                best[place], owner[place] = overlap, number
    matched = np.where(best >= positive, owner, np.where(best < negative, -1, -2))
    # Objects as they come; here no two want one anchor.
    wishes = [int(scenes.overlaps(box, scenes.ANCHORS).argmax()) for box, _, _ in learnt]
    assert len(set(wishes)) == len(wishes)
    for number, wish in enumerate(wishes):
        matched[wish] = number
    for place, anchor in enumerate(scenes.ANCHORS):
        if matched[place] >= 0:
            box, label, _ = learnt[matched[place]]
            classes[place], codes[place] = label, scenes.code_of(box, anchor)
        else:
            covered = any(scenes.overlaps(box, anchor[None])[0] >= positive for box, _, _ in crowds)
            classes[place] = -2 if covered else matched[place]
    return classes, codes


@pytest.fixture
def batches(scenes):
    """Two batches of two images of noise, and their targets."""
    targets = scenes.truths(OBJECTS)
    pixels = np.random.default_rng(1).integers(0, 255, (4, 128, 128, 3)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((pixels, targets)).batch(2)


@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.5), (0.6, 0.35)])
def test_what_anchors_learn(scenes, batches, positive, negative):
    settings = section(positive_iou=positive, negative_iou=negative)
    learnt = [targets for _, targets in criterion(scenes, settings).batches(batches)]
    classes = np.concatenate([one["class_logits"] for one in learnt])
    boxes = np.concatenate([one["box_regression"] for one in learnt])
    expected = [written_out(scenes, image, positive, negative) for image in OBJECTS]
    # All kinds of anchors: with an object, nothing, ignored for a crowd (or, in between, for its overlap).
    assert {-2, -1, 0, 1, 2} == set(np.unique(classes))
    for row, (wanted, codes) in enumerate(expected):
        np.testing.assert_array_equal(classes[row], wanted)
        np.testing.assert_array_equal(boxes[row, :, 4], wanted)
        np.testing.assert_allclose(boxes[row, :, :4], codes, atol=2e-5)


def test_images_go_through_unchanged(scenes, batches):
    pairs = zip(batches, criterion(scenes, section()).batches(batches), strict=True)
    for (before, _), (after, _) in pairs:
        np.testing.assert_array_equal(before, after)


def expected_losses(scenes, settings, batch, given):
    """By the functions of tfqat.detection.losses, of targets written out."""
    found = [written_out(scenes, image, settings.positive_iou, settings.negative_iou) for image in batch]
    classes = np.stack([one[0] for one in found]).astype(np.int32)
    codes = np.stack([one[1] for one in found]).astype(np.float32)
    of_classes = losses.class_loss(classes, given["class_logits"], settings.focal_alpha, settings.focal_gamma)
    regression = given["box_regression"]
    if settings.box_loss == "huber":
        of_boxes = losses.box_loss(classes, codes, regression, settings.huber_delta)
    else:
        of_boxes = losses.overlap_loss(classes, codes, regression, scenes.ANCHORS, settings.box_loss)
    return float(of_classes), float(of_boxes)


# Settings, and what the loss of the boxes is weighed by.
LOSSES = {
    "huber": ({}, 50.0),
    "settings": ({"focal_alpha": 0.4, "focal_gamma": 2.0, "huber_delta": 0.3, "box_weight": 7.0}, 7.0),
    "giou": ({"box_loss": "giou"}, 1.0),
    "ciou": ({"box_loss": "ciou", "box_weight": 3.0, "positive_iou": 0.6, "negative_iou": 0.35}, 3.0),
}


@pytest.mark.parametrize(("keys", "weight"), LOSSES.values(), ids=LOSSES)
def test_losses_and_their_sum(scenes, detector, batches, keys, weight):
    settings = section(**keys)
    judge = criterion(scenes, settings)
    judge.compile(detector)
    found = judge.evaluate(detector, batches)
    each = [
        expected_losses(scenes, settings, OBJECTS[2 * number : 2 * number + 2], detector.predict_on_batch(images))
        for number, (images, _) in enumerate(batches)
    ]
    of_classes, of_boxes = np.mean(each, axis=0)
    assert min(of_classes, of_boxes) > 0
    assert found["class_logits_loss"] == pytest.approx(of_classes, rel=1e-4)
    assert found["box_regression_loss"] == pytest.approx(of_boxes, rel=1e-4)
    assert found["loss"] == pytest.approx(of_classes + weight * of_boxes, rel=1e-4)
    # What Keras computes of the compiled losses is what training sees.
    assert detector.evaluate(judge.batches(batches), verbose=0)[0] == pytest.approx(found["loss"], rel=1e-4)


def test_figures_are_those_of_the_decoded_outputs(scenes, detector, batches):
    """Objects are put where the model finds some of its boxes, so that the figures are neither 0 nor 1."""
    images = np.concatenate([images for images, _ in batches])
    given = detector.predict_on_batch(images)
    scores = 1 / (1 + np.exp(-given["class_logits"].astype(np.float64)))
    boxes = np.stack([scenes.box_of(codes, scenes.ANCHORS) for codes in given["box_regression"]])
    found = [suppress(*one, 0.5, 0.01, 100) for one in zip(boxes, scores, strict=True)]
    found = [Detections(np.clip(one.boxes, 0, 128), one.scores, one.classes) for one in found]
    objects = [
        [(one.boxes[k] + (0, 0, 1, 2), int(one.classes[k]), False) for k in (0, 5, 11) if np.ptp(one.boxes[k]) > 4]
        for one in found
    ]
    targets = scenes.truths(objects)
    whole = [
        Truth(targets["boxes"][row][: len(one)], targets["classes"][row][: len(one)],
              targets["crowd"][row][: len(one)], targets["areas"][row][: len(one)])
        for row, one in enumerate(objects)
    ]  # fmt: skip
    expected = mean_ap(whole, found, NAMES).mean
    assert 0.05 < expected.ap < expected.ap50 < 0.95
    judge = criterion(scenes, section())
    judge.compile(detector)
    measured = judge.evaluate(detector, tf.data.Dataset.from_tensor_slices((images, targets)).batch(3))
    assert measured["AP50"] == pytest.approx(expected.ap50, abs=1e-3)
    assert measured["AP"] == pytest.approx(expected.ap, abs=1e-3)


def test_boxes_that_are_not_finite_are_a_loss_that_is_not(scenes, batches):
    """So that training goes back, or says why it ends."""
    judge, model = criterion(scenes, section()), scenes.detector()
    bias = model.get_layer("box_last").bias
    bias.assign(np.full(bias.shape, np.nan))
    found = judge.evaluate(model, batches)
    assert not np.isfinite(found["loss"])
    assert (found["AP50"], found["AP"]) == (0.0, 0.0)


def test_it_is_trained_for(scenes, batches):
    """Some steps on one batch lower both losses."""
    judge, model = criterion(scenes, section()), scenes.detector()
    judge.compile(model, keras.optimizers.Adam(2e-3))
    few = batches.take(1)
    before = judge.evaluate(model, few)
    model.fit(judge.batches(few), epochs=8, verbose=0)
    after = judge.evaluate(model, few)
    assert after["class_logits_loss"] < before["class_logits_loss"]
    assert after["box_regression_loss"] < before["box_regression_loss"]


def model_of(outputs):
    image = keras.Input((128, 128, 3))
    flat = keras.layers.GlobalAveragePooling2D()(image)

    def make(name, shape):
        made = keras.layers.Dense(int(np.prod(shape)), name=f"dense_{name}")(flat)
        return keras.layers.Reshape(shape, name=name)(made)

    if isinstance(outputs, list):
        return keras.Model(image, [make(f"out{number}", shape) for number, shape in enumerate(outputs)])
    return keras.Model(image, {name: make(name, shape) for name, shape in outputs.items()})


WRONG_MODELS = {
    "a_list": ([(6, 3), (6, 4)], 3, r"has 2 outputs without these names; a detector gives a dict of class_logits \(6"),
    "one_name": ({"class_logits": (6, 3)}, 3, r"has \['class_logits'\]; a detector gives"),
    "other_names": ({"boxes": (6, 4), "class_logits": (6, 3)}, 3, r"has \['boxes', 'class_logits'\]"),
    "classes": ({"class_logits": (6, 4), "box_regression": (6, 4)}, 3, r"'class_logits': \(6, 4\).*expected a dict"),
    "anchors": ({"class_logits": (5, 3), "box_regression": (5, 4)}, 3, r"\(5, 3\).*Change model_config\.num_classes"),
    "corners": ({"class_logits": (6, 3), "box_regression": (6, 5)}, None, r"'box_regression': \(6, 5\)"),
}


@pytest.mark.parametrize(("outputs", "classes", "message"), WRONG_MODELS.values(), ids=WRONG_MODELS)
def test_models_that_are_no_detectors(outputs, classes, message):
    with pytest.raises(TfqatError, match=message):
        check_outputs(model_of(outputs), "users:net", 6, classes)


@pytest.mark.parametrize("classes", [3, None])
def test_models_that_are(classes):
    check_outputs(model_of({"class_logits": (6, 3), "box_regression": (6, 4)}), "users:net", 6, classes)


@pytest.fixture
def task():
    return task_of(
        Spec.model_validate(
            {
                "results_dir": "unused",
                "dataset_config": {"kind": "voc", "path": "none", "image_size": [128, 256]},
                "model_config": {"architecture": "efficientdet_d0", "num_classes": 3},
                "detection_config": {"anchor_scale": 3.0, "aspect_ratios": [1.0, 1.5, 0.5], "max_detections": 7},
            }
        )
    )


def test_the_spec_decides_the_anchors(task):
    assert task.figure == "AP50"
    assert task.image_size == (128, 256)
    assert task.anchors.shape == (9 * (16 * 32 + 8 * 16 + 4 * 8 + 2 * 4 + 1 * 2), 4)
    # The first place of level 3: its middle at (4, 4), a side of 3 strides of 8 pixels; then 1.5 times as wide as high.
    np.testing.assert_allclose(task.anchors[0], [4 - 12, 4 - 12, 4 + 12, 4 + 12])
    height, width = task.anchors[1][2:] - task.anchors[1][:2]
    assert (width / height, width * height) == (pytest.approx(1.5, rel=1e-5), pytest.approx(24 * 24, rel=1e-5))
    assert task.decoder.max_detections == 7


def test_arrays_of_other_files(task):
    data = HeldOut(validation=None, num_classes=3, input_shape=(128, 256, 3), class_names=NAMES)
    count = len(task.anchors)
    right = [np.zeros((2, count, 4)), np.zeros((2, count, 3))]
    task.check_arrays("a.onnx", right, None, data)
    for wrong in (right[::-1], [right[0], np.zeros((2, count, 4))], [array[:, 1:] for array in right]):
        with pytest.raises(
            ModelFileError, match=r"a\.onnx gives outputs of the shapes .*, expected .*a model that was"
        ):
            task.check_arrays("a.onnx", wrong, None, data)


def test_a_finished_file_of_other_classes(task):
    data = HeldOut(validation=None, num_classes=3, input_shape=(128, 256, 3), class_names=NAMES)
    found = [np.zeros((2, 7, 4)), np.zeros((2, 7)), np.full((2, 7), 2), np.ones((2, 1))]
    task.check_arrays("a.nms.onnx", found, None, data)
    found[2][1, 3] = 3
    with pytest.raises(ModelFileError, match=r"a\.nms\.onnx finds a class 3, expected 0 to 2"):
        task.check_arrays("a.nms.onnx", found, None, data)
    with pytest.raises(ModelFileError, match="finds a class 3"):
        task.findings("a.nms.onnx", found, [], NAMES, None)


def test_boxes_of_image_files(task, scenes):
    """In the files' own pixels; below 0.3 only where asked for; of one class, the overlapping ones go."""
    count = len(task.anchors)
    codes, logits = np.zeros((1, count, 4), np.float32), np.full((1, count, 3), -20.0, np.float32)
    wanted = [((16, 32, 80, 112), 2, 0.9), ((20, 36, 84, 116), 2, 0.6), ((60, 90, 140, 300), 0, 0.2)]
    for box, label, score in wanted:
        place = int((scenes.overlaps(box, task.anchors) * (logits[0].max(1) < -19)).argmax())
        codes[0, place] = scenes.code_of(box, task.anchors[place])
        logits[0, place, label] = np.log(score / (1 - score))
    given = [Prepared(tf.zeros((128, 256, 3)), (60, 128), (2.0, 2.0))]
    (one,) = task.findings("a.onnx", [codes, logits], given, NAMES, None)
    assert [row[0] for row in one.rows()] == ["owl"]
    np.testing.assert_allclose(one.rows()[0][1:], [0.9, 16, 8, 56, 40], atol=0.01)
    (more,) = task.findings("a.onnx", [codes, logits], given, NAMES, 0.1)
    assert [(row[0], row[1]) for row in more.rows()] == [("owl", pytest.approx(0.9)), ("cat", pytest.approx(0.2))]
    np.testing.assert_allclose(more.rows()[1][2:], [45, 30, 128, 60], atol=0.01)  # cut at the image's edges
    assert more.to_dict()["objects"][0] == {
        "label": "owl", "confidence": pytest.approx(0.9), "xmin": 16, "ymin": 8, "xmax": 56, "ymax": 40,
    }  # fmt: skip
    picture = task.drawn(Image.new("RGB", (128, 60)), more, NAMES)
    assert picture.size == (128, 60)
    with pytest.raises(ModelFileError, match=r"expected \[\(6138, 4\), \(6138, 2\)\]: box regression"):
        task.findings("a.onnx", [codes, logits], given, NAMES[:2], None)
