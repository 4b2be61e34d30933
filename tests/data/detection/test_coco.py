"""COCO: what is read, judged by pycocotools, and files that are not as they should be."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tfqat.data.detection import coco
from tfqat.data.detection.clean import Choices
from tfqat.errors import TfqatError


def found(reading):
    return [(finding.kind, finding.done) for finding in reading.report.findings]


def test_what_is_read_is_what_pycocotools_reads(write_coco, coco_content):
    coco_content["annotations"][0] |= {"bbox": [1.25, 2.5, 10.2, 5.1], "iscrowd": 1}
    file, folder = write_coco(coco_content)
    reading = coco.read(file, folder)
    theirs = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed (extra `detection`)").COCO(
        file
    )
    assert reading.class_map.ids == tuple(sorted(theirs.getCatIds()))
    assert reading.class_map.names == tuple(entry["name"] for entry in theirs.loadCats(reading.class_map.ids))
    for one in reading.examples:
        entries = theirs.loadAnns(theirs.getAnnIds(imgIds=int(one.source_id)))
        x, y, width, height = np.reshape([entry["bbox"] for entry in entries], (-1, 4)).T
        np.testing.assert_array_equal(one.boxes, np.float32(np.stack([y, x, y + height, x + width], -1)))
        assert [reading.class_map.ids[label] for label in one.classes] == [entry["category_id"] for entry in entries]
        assert one.crowd.tolist() == [bool(entry["iscrowd"]) for entry in entries]
        assert one.areas.tolist() == [entry["area"] for entry in entries]
    assert found(reading) == []


def test_chosen_classes_in_their_order(write_coco, coco_content):
    reading = coco.read(*write_coco(coco_content), classes=["cat"])
    assert reading.class_map.ids == (17,)
    assert [one.classes.tolist() for one in reading.examples] == [[0], [0], []]
    assert found(reading) == [("unknown_class", "dropped")]
    with pytest.raises(TfqatError, match="no category horse; it has cat, dog"):
        coco.read(*write_coco(coco_content), classes=["cat", "horse"])


# What is changed in the file -> the finding, and how many boxes are left of three.
CHANGES = {
    "segmentation only": (lambda c: c["annotations"][0].pop("bbox"), "no_box", 2),
    "no bbox": (lambda c: [c["annotations"][0].pop(key) for key in ("bbox", "segmentation")], "broken_annotation", 2),
    "bbox of three": (lambda c: c["annotations"][0]["bbox"].pop(), "broken_annotation", 2),
    "bbox of text": (lambda c: c["annotations"][0].update(bbox=["a", 1, 2, 3]), "broken_annotation", 2),
    "bbox huge": (lambda c: c["annotations"][0].update(bbox=[10**400, 1, 2, 3]), "broken_annotation", 2),
    "bbox nan": (lambda c: c["annotations"][0].update(bbox=[float("nan"), 1, 2, 3]), "not_finite", 2),
    "area nan": (lambda c: c["annotations"][0].update(area=float("nan")), "not_finite", 2),
    "bbox inf": (lambda c: c["annotations"][0].update(bbox=[1e300, 1, 2, 3]), "not_finite", 2),
    "no class": (lambda c: c["annotations"][0].update(category_id=99), "unknown_class", 2),
    "no image": (lambda c: c["annotations"][0].update(image_id=99), "unknown_image", 2),
    "image's id a list": (lambda c: c["annotations"][0].update(image_id=[1]), "broken_annotation", 2),
    "a number": (lambda c: c["annotations"].__setitem__(0, 3), "broken_annotation", 2),
    "flat": (lambda c: c["annotations"][0].update(bbox=[5, 5, 0, 4]), "no_area", 2),
    "outside": (lambda c: c["annotations"][0].update(bbox=[60, 40, 10, 10]), "outside", 3),
    "image without name": (lambda c: c["images"][1].pop("file_name"), "broken_annotation", 2),
    "image missing": (lambda c: c["images"][1].update(file_name="gone.jpg"), "missing_image", 2),
    "image elsewhere": (lambda c: c["images"][1].update(file_name="../images/b.jpg"), "outside_path", 2),
    "image twice": (lambda c: c["images"].append(copy.deepcopy(c["images"][1])), "duplicate", 3),
    "other size": (lambda c: c["images"][1].update(width=33), "other_size", 3),
}


@pytest.mark.parametrize(("change", "kind", "left"), CHANGES.values(), ids=CHANGES)
def test_what_is_not_as_it_should_be_is_counted_named_and_refused_where_strict(
    write_coco, coco_content, change, kind, left
):
    change(coco_content)
    file, folder = write_coco(coco_content)
    reading = coco.read(file, folder)
    assert [name for name, _ in found(reading)] == [kind]
    assert reading.report.boxes == left == sum(len(one.boxes) for one in reading.examples)
    with pytest.raises(TfqatError, match="strict reading found 1 problem:"):
        coco.read(file, folder, choices=Choices(strict=True))


def test_each_object_of_an_image_that_is_not_listed_counts(write_coco, coco_content):
    for entry in coco_content["annotations"][:2]:
        entry["image_id"] = 99
    reading = coco.read(*write_coco(coco_content))
    assert found(reading) == [("unknown_image", "dropped")] * 2
    assert "2 objects of an image that is not listed" in str(reading.report)
    assert reading.report.boxes == 1


def test_a_file_of_segmentations_only_says_so(write_coco, coco_content):
    for entry in coco_content["annotations"]:
        entry["bbox"] = []
    reading = coco.read(*write_coco(coco_content))
    assert [kind for kind, _ in found(reading)] == ["no_box"] * 3 + ["no_boxes"]
    assert "3 objects with a segmentation only: dropped" in str(reading.report)


BROKEN = {
    "no JSON": (b"{", "cannot be read as JSON"),
    "no text": (b"\xff\xfe\xff", "cannot be read as JSON"),
    "deep": (b"[" * 100_000, "cannot be read as JSON"),
    "a list": (b"[]", "images, annotations, categories are missing"),
    "results": (b'{"images": [], "annotations": {}, "categories": []}', "annotations is missing or no list"),
    "category": (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', "needs a name"),
    "category twice": (
        b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
        "each number once",
    ),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_coco_json(coco_folder, content, says):
    (coco_folder / "x.json").write_bytes(content)
    with pytest.raises(TfqatError, match=says):
        coco.read(coco_folder / "x.json", coco_folder / "images")


def test_a_folder_that_is_not_there(coco_folder):
    with pytest.raises(TfqatError, match="no folder at"):
        coco.read(coco_folder / "x.json", coco_folder / "nowhere")
