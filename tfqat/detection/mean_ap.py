"""Mean AP: how well detections meet the ground truth, by COCO's rules, as pycocotools computes them.

AP of a class is the mean precision at 101 recalls, averaged over the overlaps 0.50 to 0.95; source:
https://cocodataset.org/#detection-eval. Of each image the 100 detections with the highest scores count.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tfqat.errors import TfqatError

ALL_OVERLAPS, AT_50, AT_75 = slice(None), slice(0, 1), slice(5, 6)
# pycocotools' order of areas: all, small (below 32 x 32 pixels), medium, large (above 96 x 96).
ALL_AREAS, SMALL, MEDIUM, LARGE = range(4)
MOST_DETECTIONS = 2  # index of 100 in its list of 1, 10 and 100


class Truth(Protocol):
    """The objects of one image; boxes are ymin, xmin, ymax, xmax. A `data.detection.example.Example` is one."""

    @property
    def boxes(self) -> np.ndarray: ...

    @property
    def classes(self) -> np.ndarray: ...

    @property
    def crowd(self) -> np.ndarray: ...

    @property
    def areas(self) -> np.ndarray: ...


class Found(Protocol):
    """What a detector found in one image, in the same pixels."""

    @property
    def boxes(self) -> np.ndarray: ...

    @property
    def classes(self) -> np.ndarray: ...

    @property
    def scores(self) -> np.ndarray: ...


@dataclass(frozen=True)
class AP:
    """Average precisions from 0 to 1; None where there is no object to find.

    Attributes:
        ap: over the overlaps 0.50, 0.55 to 0.95.
        ap50, ap75: at an overlap of 0.50, 0.75.
        small, medium, large: as ``ap``, of objects of that area.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None


@dataclass(frozen=True)
class MeanAP:
    """The mean over the classes that have an object, and each class alone."""

    mean: AP
    classes: Mapping[str, AP]


def mean_ap(truths: Sequence[Truth], found: Sequence[Found], class_names: Sequence[str]) -> MeanAP:
    """Compares what was found in each image with what is there.

    Args:
        truths, found: one an image, in the same order.
        class_names: class k of the boxes is ``class_names[k]``.

    Raises:
        TfqatError: pycocotools is not installed, or the two do not belong together.
    """
    if len(truths) != len(found):
        raise TfqatError(f"Detections of {len(found)} images cannot be compared with {len(truths)} annotated images.")
    for index, (truth, one) in enumerate(zip(truths, found, strict=True)):
        _check(truth, ("classes", "crowd", "areas"), len(class_names), f"ground truth of image {index}")
        _check(one, ("classes", "scores"), len(class_names), f"detections of image {index}")
    precision = _precision(_annotations(truths), _results(found), len(truths), len(class_names))
    each = {name: _ap(precision[:, :, label : label + 1]) for label, name in enumerate(class_names)}
    return MeanAP(_ap(precision), each)


def _check(value: Any, columns: Sequence[str], classes: int, where: str) -> None:
    count = len(value.boxes)
    shapes = {name: np.shape(getattr(value, name)) for name in columns}
    if (np.shape(value.boxes) != (count, 4) and count) or any(shape != (count,) for shape in shapes.values()):
        raise TfqatError(
            f"The {where}: expected boxes (n, 4) and {', '.join(columns)} (n,), received {np.shape(value.boxes)} and "
            f"{', '.join(str(shape) for shape in shapes.values())}."
        )
    numbers = np.concatenate([np.ravel(value.boxes), *(np.ravel(getattr(value, name)) for name in columns)])
    if not np.isfinite(numbers.astype(np.float64)).all():
        raise TfqatError(f"The {where} hold numbers that are not finite.")
    labels = np.asarray(value.classes)
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise TfqatError(
            f"The {where}: expected classes from 0 to {classes - 1}, received {labels.min()} to {labels.max()}."
        )


def _annotations(truths: Sequence[Truth]) -> list[dict[str, Any]]:
    # Numbers begin at 1: pycocotools takes a detection that is matched with annotation 0 for one that is not matched.
    rows = [(image, truth, row) for image, truth in enumerate(truths) for row in range(len(truth.boxes))]
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": int(truth.classes[row]),
            "bbox": _xywh(truth.boxes[row]),
            "area": float(truth.areas[row]),
            "iscrowd": int(truth.crowd[row]),
        }
        for number, (image, truth, row) in enumerate(rows, 1)
    ]


def _results(found: Sequence[Found]) -> list[dict[str, Any]]:
    rows = [(image, one, row) for image, one in enumerate(found) for row in range(len(one.boxes))]
    results = []
    for number, (image, one, row) in enumerate(rows, 1):
        box = _xywh(one.boxes[row])
        results.append(
            {
                "id": number,
                "image_id": image,
                "category_id": int(one.classes[row]),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": float(one.scores[row]),
            }
        )
    return results


def _xywh(box: np.ndarray) -> list[float]:
    top, left, bottom, right = (float(value) for value in box)
    return [left, top, right - left, bottom - top]


def _precision(
    annotations: list[dict[str, Any]], results: list[dict[str, Any]], images: int, classes: int
) -> np.ndarray:
    """``(overlaps, recalls, classes, areas)``; -1 where there is nothing to find."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise TfqatError(
            "Mean average precision is computed by pycocotools, which is not installed: pip install 'tfqat[detection]'."
        ) from error

    def coco(entries: list[dict[str, Any]]) -> Any:
        made = COCO()
        # `loadRes` does this too, but fails where nothing was found.
        made.dataset = {
            "images": [{"id": image} for image in range(images)],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": entries,
        }
        made.createIndex()
        return made

    with redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(coco(annotations), coco(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., MOST_DETECTIONS]


def _ap(precision: np.ndarray) -> AP:
    def mean(overlaps: slice, area: int) -> float | None:
        values = precision[overlaps, :, :, area]
        there = values[values > -1]
        return float(there.mean()) if there.size else None

    areas = (mean(ALL_OVERLAPS, area) for area in (SMALL, MEDIUM, LARGE))
    return AP(mean(ALL_OVERLAPS, ALL_AREAS), mean(AT_50, ALL_AREAS), mean(AT_75, ALL_AREAS), *areas)
