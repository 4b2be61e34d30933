"""Meter: what is found is measured in each image's own pixels; figures worked out by hand."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tfqat.detection.nms import Detections
from tfqat.errors import TfqatError
from tfqat.tasks.detection.decoder import Decoder
from tfqat.tasks.detection.meter import DetectionMeter, in_own_pixels

NAMES = ("cat", "dog")
CAT, DOG = (16, 20, 60, 70), (64, 64, 104, 120)


@pytest.fixture
def measured(scenes):
    def measured(found, wanted, **options):
        meter = DetectionMeter(Decoder(scenes.ANCHORS, 0.5, 0.01, 100), NAMES)
        meter.add(scenes.saying(found, len(NAMES)), scenes.truths(wanted, **options))
        return meter

    return measured


def test_everything_found(measured):
    meter = measured([[(CAT, 0, 0.9), (DOG, 1, 0.8)], []], [[(CAT, 0, False), (DOG, 1, False)], []])
    assert meter.figure() == pytest.approx(1)
    assert meter.figures() == pytest.approx({"AP50": 1, "AP": 1})


def test_a_better_scored_mistake_halves_the_precision(measured):
    """One cat; before it comes a box where there is none: at each recall the precision is 1 of 2."""
    meter = measured([[(CAT, 0, 0.5), (DOG, 0, 0.9)]], [[(CAT, 0, False)]])
    assert meter.figure() == pytest.approx(0.5)


def test_the_class_counts(measured):
    meter = measured([[(CAT, 1, 0.9)]], [[(CAT, 0, False)]])
    assert meter.figure() == 0


def test_what_lies_in_a_crowd_is_no_mistake_and_the_crowd_none_to_miss(measured):
    for many, expected in ((True, 1.0), (False, None)):
        meter = measured([[(CAT, 0, 0.5), (DOG, 0, 0.9)]], [[(CAT, 0, False), (DOG, 0, many)]])
        assert meter.figure() == pytest.approx(1.0)
        # Nobody finds it: a miss, unless it is a crowd.
        alone = measured([[(CAT, 0, 0.5)]], [[(CAT, 0, False), (DOG, 0, many)]])
        if expected:
            assert alone.figure() == pytest.approx(1.0)
        else:
            assert alone.figure() == pytest.approx(51 / 101)  # recalls 0, 0.01 to 0.5 are reached, of 101


def test_padding_is_no_object(measured):
    """The first image has two boxes, so the second one's row is padded."""
    meter = measured([[(CAT, 0, 0.9), (DOG, 0, 0.9)], [(CAT, 0, 0.9)]],
                     [[(CAT, 0, False), (DOG, 0, False)], [(CAT, 0, False)]])  # fmt: skip
    assert [len(truth.boxes) for truth in meter.truths] == [2, 1]
    assert meter.result().boxes == 3
    assert meter.figure() == pytest.approx(1)


def test_own_pixels_clipped_to_the_image(measured):
    """An image of 50 x 80 pixels, made 1.6 times as large; below row 80 is padding."""
    found = [[((16, 32, 48, 64), 0, 0.9), ((60, 100, 110, 140), 1, 0.8)]]
    meter = measured(found, [[((16, 32, 48, 64), 0, False)]], size=(50, 80), scale=1.6)
    (one,) = meter.found
    np.testing.assert_allclose(one.boxes, [[10, 20, 30, 40], [37.5, 62.5, 50, 80]], atol=1e-3)
    assert one.classes.tolist() == [0, 1]
    np.testing.assert_allclose(one.scores, [0.9, 0.8], rtol=1e-5)
    np.testing.assert_allclose(meter.truths[0].boxes, [[10, 20, 30, 40]], rtol=1e-6)


def test_small_is_small_in_the_images_own_pixels(measured):
    """30 x 30 pixels are small (below 32 x 32), though the model sees 60 x 60."""
    box = (4, 4, 64, 64)
    result = measured([[(box, 0, 0.9)]], [[(box, 0, False)]], size=(64, 64), scale=2.0).result()
    assert (result.measured.mean.small, result.measured.mean.medium) == (pytest.approx(1), None)


def test_batches_add_up(measured, scenes):
    one = measured([[(CAT, 0, 0.9)], [(DOG, 1, 0.3)]], [[(CAT, 0, False)], [(CAT, 1, False)]])
    two = measured([[(CAT, 0, 0.9)]], [[(CAT, 0, False)]])
    two.add(scenes.saying([[(DOG, 1, 0.3)]], 2), scenes.truths([[(CAT, 1, False)]]))
    assert one.figures() == two.figures() == pytest.approx({"AP50": 0.5, "AP": 0.5})


def test_data_without_a_box(measured):
    meter = measured([[(CAT, 0, 0.9)]], [[]])
    with pytest.raises(TfqatError, match="no box, so nothing can be measured"):
        meter.figure()


def test_the_result_as_json_and_as_tables(measured):
    result = measured([[(CAT, 0, 0.9), (DOG, 1, 0.8)]], [[(CAT, 0, False)]]).result()
    told = json.loads(json.dumps(result.to_dict()))
    assert (told["images"], told["boxes"], told["AP50"], told["small"]) == (1, 1, pytest.approx(1), None)
    assert [(row["class"], row["AP50"]) for row in told["classes"]] == [("cat", pytest.approx(1)), ("dog", None)]
    text = io.StringIO()
    Console(file=text, width=80).print(result.tables("a.onnx", "onnxruntime"))
    lines = text.getvalue().splitlines()
    assert "a.onnx, run by onnxruntime" in text.getvalue()
    assert any("cat" in line and "100.00%" in line for line in lines)
    assert any("dog" in line and "100.00%" not in line and "-" in line for line in lines)


def test_what_is_found_in_the_padding_alone_is_left_out():
    boxes = np.array([[0, 0, 20, 30], [90, 10, 120, 40], [70, 10, 120, 40]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2], np.int32))
    own = in_own_pixels(found, np.array([1.6, 1.6]), np.array([50, 80]))
    np.testing.assert_allclose(own.boxes, [[0, 0, 12.5, 18.75], [43.75, 6.25, 50, 25]])
    np.testing.assert_array_equal(own.classes, [0, 2])
    np.testing.assert_array_equal(own.scores, np.float32([0.9, 0.7]))
