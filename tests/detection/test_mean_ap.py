"""Mean AP: equal to pycocotools called by hand on files in its own format, and to numbers worked out on paper."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tfqat.detection.mean_ap import AP, mean_ap
from tfqat.errors import TfqatError

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
NAMES = ("cat", "dog", "horse")
NONE = AP(None, None, None, None, None, None)


@dataclass(frozen=True)
class Objects:
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    scores: np.ndarray | None = None


def truth(rows):
    """Rows of (class, box, crowd)."""
    boxes = np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Objects(
        boxes, np.array([label for label, _, _ in rows], int), np.array([crowd for *_, crowd in rows], bool), areas
    )


def found(rows):
    """Rows of (class, box, score)."""
    boxes = np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4)
    return Objects(
        boxes, np.array([label for label, _, _ in rows], int), scores=np.array([score for *_, score in rows])
    )


def sample(seed, images=12):
    """Objects of all three sizes, some of them crowds, some of areas unlike their box; detections near them and not."""
    random = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        count = random.integers(0, 7)
        corner, side = random.integers(0, 300, (count, 2)), random.choice([8, 20, 60, 150], (count, 2))
        boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
        labels, crowd = random.integers(0, 2, count), random.random(count) < 0.15
        truths.append(Objects(boxes, labels, crowd, (side.prod(1) * random.choice([0.5, 1], count)).astype(np.float32)))
        near = np.repeat(boxes, 2, axis=0) + random.integers(-16, 17, (2 * count, 4)) / 4
        far = np.array([[5, 5, 40, 40]] * 2)
        labels = np.concatenate([np.repeat(labels, 2), random.integers(0, 3, 2)])
        labels = np.where(random.random(len(labels)) < 0.1, 2, labels)
        near_and_far = np.concatenate([near, far]).astype(np.float32)
        detections.append(Objects(near_and_far, labels, scores=random.integers(1, 64, len(labels)) / 64))
    return truths, detections


def by_hand(truths, detections, folder):
    """pycocotools from its own two files: the 6 average precisions, and AP of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        return [float(box[1]), float(box[0]), float(box[3] - box[1]), float(box[2] - box[0])]

    annotations = [
        {
            "image_id": 10 + image,
            "category_id": 5 + int(label),
            "bbox": xywh(box),
            "area": float(area),
            "iscrowd": int(crowd),
        }
        for image, one in enumerate(truths)
        for box, label, crowd, area in zip(one.boxes, one.classes, one.crowd, one.areas, strict=True)
    ]
    content = {
        "images": [{"id": 10 + image} for image in range(len(truths))],
        "categories": [{"id": 5 + label, "name": name} for label, name in enumerate(NAMES)],
        "annotations": [entry | {"id": 100 + number} for number, entry in enumerate(annotations)],
    }
    results = [
        {"image_id": 10 + image, "category_id": 5 + int(label), "bbox": xywh(box), "score": float(score)}
        for image, one in enumerate(detections)
        for box, label, score in zip(one.boxes, one.classes, one.scores, strict=True)
    ]
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        there = COCO(str(folder / "instances.json"))
        whole = COCOeval(there, there.loadRes(str(folder / "results.json")), "bbox")
        each = [COCOeval(there, there.loadRes(str(folder / "results.json")), "bbox") for _ in NAMES]
        for label, one in enumerate(each):
            one.params.catIds = [5 + label]
        for one in (whole, *each):
            one.evaluate()
            one.accumulate()
            one.summarize()
    return whole.stats[:6], [one.stats[:6] for one in each]


def numbers(ap):
    return [-1 if value is None else value for value in (ap.ap, ap.ap50, ap.ap75, ap.small, ap.medium, ap.large)]


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools_on_its_own_files(tmp_path, seed):
    truths, detections = sample(seed)
    whole, each = by_hand(truths, detections, tmp_path)
    ours = mean_ap(truths, detections, NAMES)
    np.testing.assert_allclose(numbers(ours.mean), whole, atol=1e-12)
    assert tuple(ours.classes) == NAMES
    for name, theirs in zip(NAMES, each, strict=True):
        np.testing.assert_allclose(numbers(ours.classes[name]), theirs, atol=1e-12)
    assert 0 < whole[0] < 1
    assert any(one.crowd.any() for one in truths)


def test_the_first_annotation_can_be_found():
    """pycocotools takes annotation 0 for none."""
    box = (10, 10, 60, 60)
    ours = mean_ap([truth([(0, box, False)])], [found([(0, box, 0.5)])], ("cat",))
    assert numbers(ours.mean) == pytest.approx([1, 1, 1, -1, 1, -1])


def test_on_paper():
    """Two objects; by falling score: found, not there, found at an overlap of 0.625. Precision is 1 up to recall 0.5
    (51 of 101 recalls) and 2/3 beyond at the three lowest overlaps, 0 at the seven others."""
    truths = [truth([(0, (0, 0, 100, 100), False), (0, (200, 200, 300, 300), False)])]
    rows = [(0, (0, 0, 100, 100), 0.9), (0, (400, 400, 450, 450), 0.8), (0, (200, 200, 300, 262.5), 0.7)]
    ours = mean_ap(truths, [found(rows)], ("cat",)).mean
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    np.testing.assert_allclose([ours.ap50, ours.ap75], [low, high])
    assert ours.ap == pytest.approx((3 * low + 7 * high) / 10)


def test_nothing_found():
    ours = mean_ap([truth([(0, (0, 0, 50, 50), False)])], [found([])], NAMES)
    assert ours.mean.ap == ours.classes["cat"].ap == 0
    assert ours.classes["dog"] == NONE


def test_a_class_without_an_object_does_not_count():
    box = (0, 0, 50, 50)
    ours = mean_ap([truth([(0, box, False)])], [found([(0, box, 0.5), (1, box, 0.9)])], NAMES)
    assert ours.mean.ap == pytest.approx(1)
    assert ours.classes["dog"] == NONE


def test_no_object_at_all():
    ours = mean_ap([truth([])], [found([(0, (0, 0, 9, 9), 0.5)])], NAMES)
    assert ours.mean == NONE
    assert mean_ap([], [], NAMES).mean == NONE


def test_what_is_found_in_a_crowd_neither_helps_nor_harms():
    one, crowd = (0, 0, 50, 50), (100, 100, 300, 300)
    inside = [(0, (110, 110, 150, 150), 0.95), (0, (200, 200, 250, 250), 0.9)]
    truths, only = [truth([(0, one, False), (0, crowd, True)])], [truth([(0, one, False)])]
    detections = [found([(0, one, 0.5), *inside])]
    assert mean_ap(truths, detections, ("cat",)).mean.ap == pytest.approx(1)
    assert mean_ap(only, detections, ("cat",)).mean.ap == pytest.approx(1 / 3)


def test_nothing_is_printed(capfd):
    mean_ap(*sample(0), NAMES)
    assert capfd.readouterr().out == ""


BOX = (0, 0, 5, 5)
WRONG = {
    "a class too many": (found([(3, BOX, 0.5)]), "expected classes from 0 to 2, received 3 to 3"),
    "padding": (found([(-1, BOX, 0.5)]), "received -1 to -1"),
    "score": (found([(0, BOX, np.nan)]), "not finite"),
    "box": (found([(0, (0, 0, np.inf, 5), 0.5)]), "not finite"),
    "length": (replace(found([(0, BOX, 0.5)]), scores=np.ones(2)), r"received \(1, 4\) and \(1,\), \(2,\)"),
    "shape": (replace(found([(0, BOX, 0.5)]), boxes=np.ones((1, 5))), r"expected boxes \(n, 4\)"),
}


@pytest.mark.parametrize(("detections", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_compared(detections, says):
    with pytest.raises(TfqatError, match=f"(?s)detections of image 0.*{says}"):
        mean_ap([truth([(0, BOX, False)])], [detections], NAMES)


def test_other_numbers_of_images():
    with pytest.raises(TfqatError, match="Detections of 1 images cannot be compared with 2"):
        mean_ap([truth([])] * 2, [found([])], NAMES)


def test_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(TfqatError, match=r"pip install 'tfqat\[detection\]'"):
        mean_ap(*sample(0), NAMES)
