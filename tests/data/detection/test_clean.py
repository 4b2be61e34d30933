"""Clean: images that cannot be decoded, boxes that cannot be used, and what the choices make of them."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tfqat.data.detection import clean, voc
from tfqat.data.detection.clean import Choices, cleaned
from tfqat.data.detection.example import ClassMap, ImageBytes, Object, example
from tfqat.errors import TfqatError

WHOLE, OVER, BEYOND, FLAT, TURNED = (4, 8, 20, 40), (-4, 8, 20, 70), (50, 8, 60, 20), (5, 5, 5, 9), (9, 9, 5, 5)
# Choices -> the boxes of the picture (48 x 64) that are left, in their order.
LEFT = {
    "default": (Choices(), [WHOLE, (0, 8, 20, 64)]),
    "outside dropped": (Choices(outside="drop"), [WHOLE]),
    "degenerate kept": (Choices(degenerate="keep"), [WHOLE, (0, 8, 20, 64), FLAT, TURNED]),
}


@pytest.mark.parametrize(("choices", "left"), LEFT.values(), ids=LEFT)
def test_boxes_that_are_left(voc_folder, write_xml, choices, left):
    write_xml("a", (48, 64), [("dog", box) for box in (WHOLE, OVER, BEYOND, FLAT, TURNED)])
    reading = voc.read(voc_folder, "train", choices=choices)
    np.testing.assert_array_equal(reading.examples[0].boxes, left)
    assert len(reading.examples[0].classes) == len(reading.examples[0].areas) == len(left)
    assert len(reading.report.findings) == 4


def test_a_clipped_box_has_the_area_of_what_is_left(voc_folder, write_xml):
    write_xml("a", (48, 64), [("dog", OVER)])
    assert voc.read(voc_folder, "train").examples[0].areas.tolist() == [20 * 56]


def crowded(voc_folder):
    image = ImageBytes(voc_folder / "JPEGImages" / "a.jpg")
    return example(image, "a.jpg", "1", (48, 64), [Object(WHOLE, 0, crowd=True), Object(OVER, 0, crowd=True)])


def test_crowd_is_kept_or_dropped_and_never_refused(voc_folder):
    one, classes = crowded(voc_folder), ClassMap.numbered(["dog"])
    assert cleaned("x", [one], classes, [], Choices()).examples[0].crowd.tolist() == [True, True]
    reading = cleaned(
        "x", [one, voc.read(voc_folder, "train").examples[1]], classes, [], Choices(crowd="drop", strict=True)
    )
    assert len(reading.examples[0].boxes) == 0
    assert "2 crowd boxes: dropped" in str(reading.report)


def test_strict_reading_accepts_degenerate_boxes_that_are_kept(voc_folder, write_xml):
    write_xml("a", (48, 64), [("dog", FLAT)])
    reading = voc.read(voc_folder, "train", choices=Choices(degenerate="keep", strict=True))
    assert "1 box of no area: kept" in str(reading.report)


@pytest.mark.parametrize("cut", [0, 3, 200, -40], ids=str)
def test_a_truncated_jpeg_is_left_out(voc_folder, cut):
    file = voc_folder / "JPEGImages" / "a.jpg"
    file.write_bytes(file.read_bytes()[:cut])
    reading = voc.read(voc_folder, "train")
    assert [(finding.kind, finding.where) for finding in reading.report.findings] == [("broken_image", "a.jpg")]
    assert "{{" not in str(reading.report)
    with pytest.raises(TfqatError, match="1 image that cannot be decoded"):
        voc.read(voc_folder, "train", choices=Choices(strict=True))


def test_the_image_s_own_size_counts(voc_folder, write_xml):
    write_xml("a", (100, 100), [("dog", (10, 10, 90, 90))])
    reading = voc.read(voc_folder, "train")
    np.testing.assert_array_equal(reading.examples[0].boxes, [(10, 10, 48, 64)])
    assert [finding.kind for finding in reading.report.findings] == ["other_size", "outside"]


def test_no_annotated_size_is_no_finding(voc_folder, write_xml):
    write_xml("a", (0, 0), [("dog", WHOLE)])
    reading = voc.read(voc_folder, "train")
    assert (reading.examples[0].height, reading.examples[0].width) == (48, 64)
    assert reading.report.findings == ()


def test_an_empty_split_is_named_and_refused_where_strict(voc_folder):
    (voc_folder / "ImageSets/Main/none.txt").write_text("\n")
    assert [finding.kind for finding in voc.read(voc_folder, "none").report.findings] == ["empty_split"]
    with pytest.raises(TfqatError, match="1 split without an image"):
        voc.read(voc_folder, "none", choices=Choices(strict=True))


def test_what_is_broken_off_decodes_no_further(voc_folder, monkeypatch):
    decoded = []

    def decode(one):
        decoded.append(one)
        time.sleep(0.01)
        return "", (48, 64)

    def stop(items, _):
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(clean, "_fault_and_size", decode)
    with pytest.raises(KeyboardInterrupt) as error:
        cleaned("x", [crowded(voc_folder)] * 2000, ClassMap.numbered(["dog"]), [], Choices(), stop)
    stopped = len(decoded)
    time.sleep(0.1)
    assert len(decoded) == stopped < 1000
    assert error.tb is not None  # which holds all frames, as it does until a program has ended


def test_many_findings_are_counted_and_the_first_named(voc_folder, write_xml):
    write_xml("a", (48, 64), [("dog", FLAT)] * 14 + [("dog", WHOLE)])
    text = str(voc.read(voc_folder, "train").report)
    assert "14 boxes of no area: dropped" in text
    assert text.count("ymin xmin ymax xmax 5 5 5 9") == 10
    assert "and 4 more" in text
