"""Pascal VOC: what is read, and annotations that are not as they should be or mean harm."""

from __future__ import annotations

import numpy as np
import pytest

from tfqat.data.detection import voc
from tfqat.data.detection.clean import Choices
from tfqat.errors import TfqatError

BOMB = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 9))
HARM = {
    "entities": f'<!DOCTYPE x [<!ENTITY a0 "ha">{BOMB}]><annotation><filename>&a8;</filename></annotation>',
    "external": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>',
    "cut": "<annotation><filename>a.jpg",
    "empty": "",
    "encoding": '<?xml version="1.0" encoding="none-such"?><annotation/>',
    "size": "<annotation><filename>a.jpg</filename><size><width>inf</width><height>1</height></size></annotation>",
}


def found(reading):
    return [(finding.kind, finding.done) for finding in reading.report.findings]


def test_what_is_read(voc_folder, scenes):
    reading = voc.read(voc_folder, "train")
    assert reading.class_map.names == ("cat", "dog")
    assert reading.class_map.ids == (1, 2)
    assert [one.name for one in reading.examples] == list(scenes)
    for one, (size, objects) in zip(reading.examples, scenes.values(), strict=True):
        assert (one.height, one.width) == size
        assert [reading.class_map.names[label] for label in one.classes] == [name for name, _ in objects]
        np.testing.assert_array_equal(one.boxes, np.reshape([box for _, box in objects], (-1, 4)))
        assert one.image.read() == (voc_folder / "JPEGImages" / one.name).read_bytes()
        assert not one.crowd.any()
    assert reading.examples[0].areas.tolist() == [16 * 32, 48 * 64]
    assert reading.report.findings == ()
    assert (reading.report.images, reading.report.boxes, reading.report.without_boxes) == (3, 3, 1)


def test_classes_of_all_the_folder_count_whatever_the_split_holds(voc_folder):
    (voc_folder / "ImageSets/Main/dogless.txt").write_text("b  1\nc -1\n")
    reading = voc.read(voc_folder, "dogless")
    assert reading.class_map.names == ("cat", "dog")
    assert len(reading.examples) == 2


@pytest.mark.parametrize("text", HARM.values(), ids=HARM)
def test_an_annotation_that_cannot_be_read_is_left_out_and_named(voc_folder, text):
    (voc_folder / "Annotations" / "a.xml").write_text(text)
    reading = voc.read(voc_folder, "train")
    assert found(reading) == [("broken_annotation", "left out")]
    assert "a.xml" in str(reading.report)
    assert [one.name for one in reading.examples] == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "x/../../secret.jpg", "..\\secret.jpg", "C:\\s.jpg"])
def test_no_path_leads_out_of_the_image_folder(voc_folder, path):
    (voc_folder / "secret.jpg").write_bytes((voc_folder / "JPEGImages/a.jpg").read_bytes())
    (voc_folder / "Annotations" / "a.xml").write_text(f"<annotation><filename>{path}</filename></annotation>")
    reading = voc.read(voc_folder, "train")
    assert found(reading) == [("outside_path", "left out")]
    assert "secret" not in {one.name for one in reading.examples}
    (voc_folder / "ImageSets/Main/out.txt").write_text(f"{path}\n")
    assert ("outside_path", "left out") in found(voc.read(voc_folder, "out"))


def test_what_is_missing_is_named(voc_folder):
    (voc_folder / "JPEGImages/b.jpg").unlink()
    (voc_folder / "Annotations/c.xml").unlink()
    reading = voc.read(voc_folder, "train")
    assert found(reading) == [("missing_image", "left out"), ("missing_annotation", "left out")]
    assert "b.jpg" in str(reading.report)
    assert "c.xml" in str(reading.report)


def test_an_image_listed_twice_is_read_once(voc_folder):
    (voc_folder / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    reading = voc.read(voc_folder, "train")
    assert found(reading) == [("duplicate", "read once")]
    assert len(reading.examples) == 2


def test_names_in_a_split_may_hold_spaces_and_have_a_flag_behind_them(voc_folder):
    """The list as an editor on Windows saves it, with a mark in front and CRLF."""
    for old, new in (("b", "b 1"), ("c", "größe, c")):
        for file in (voc_folder / "Annotations" / f"{old}.xml", voc_folder / "JPEGImages" / f"{old}.jpg"):
            file.rename(file.with_stem(new))
        path = voc_folder / "Annotations" / f"{new}.xml"
        path.write_text(path.read_text().replace(f"{old}.jpg", f"{new}.jpg"), "utf-8")
    names = "\ufeffa\r\nb 1\r\ngröße, c  -1\r\n"
    (voc_folder / "ImageSets/Main/train.txt").write_bytes(names.encode())
    reading = voc.read(voc_folder, "train", choices=Choices(strict=True))
    assert [one.name for one in reading.examples] == ["a.jpg", "b 1.jpg", "größe, c.jpg"]


def test_objects_that_cannot_be_used_are_dropped(voc_folder, write_xml):
    write_xml(
        "a", (48, 64), [("dog", (4, 8, 20, 40)), ("horse", (1, 1, 5, 5)), ("dog", ("?", 1, 5, 5)), ("", (1, 1, 5, 5))]
    )
    reading = voc.read(voc_folder, "train", classes=["dog", "cat"])
    kinds = [("unknown_class", "dropped"), ("broken_annotation", "dropped"), ("broken_annotation", "dropped")]
    assert found(reading) == kinds
    assert "object 2, 'horse'" in str(reading.report)
    assert reading.examples[0].classes.tolist() == [0]
    assert reading.examples[1].classes.tolist() == [1]


def test_a_split_that_is_not_there_names_those_that_are(voc_folder):
    with pytest.raises(TfqatError, match=r"no split 'val'.*Splits there: train"):
        voc.read(voc_folder, "val")
    with pytest.raises(TfqatError, match="no split"):
        voc.read(voc_folder, "../../Annotations/a")


def test_strict_reading_lists_all_that_it_refuses(voc_folder, write_xml):
    write_xml("b", (60, 32), [("cat", (5, 5, 5, 9)), ("cat", (5, 5, 9, 9))])
    (voc_folder / "JPEGImages/a.jpg").unlink()
    with pytest.raises(TfqatError, match=r"strict reading found 2 problems") as error:
        voc.read(voc_folder, "train", choices=Choices(strict=True))
    assert "a.jpg" in str(error.value)
    assert "b.jpg: box 1, ymin xmin ymax xmax 5 5 5 9" in str(error.value)


def test_bccd_is_read_whole_but_for_its_two_flat_boxes(bccd):
    readings = [voc.read(bccd, split) for split in ("train", "val", "test")]
    assert [reading.report.images for reading in readings] == [205, 87, 72]
    assert {reading.class_map.names for reading in readings} == {("Platelets", "RBC", "WBC")}
    labels = np.bincount(np.concatenate([one.classes for reading in readings for one in reading.examples]))
    assert np.add(labels, [0, 2, 0]).tolist() == [361, 4155, 372]  # <name> elements in the folder, counted by grep
    findings = [finding for reading in readings for finding in reading.report.findings]
    assert {(finding.kind, finding.where) for finding in findings} == {
        ("no_area", "BloodImage_00338.jpg"),
        ("no_area", "BloodImage_00343.jpg"),
    }
