"""Data: checks of `dataset_config` and `detection_config`, and of the model that the data need."""

from __future__ import annotations

from typing import Any

from tfqat.spec import names
from tfqat.spec.checks.check import (
    ARCHITECTURE,
    BOX_DATA,
    DATA,
    DETECTION,
    KIND,
    have_boxes,
    on,
    only_for,
    plain,
)
from tfqat.spec.schema import Detection


def _data_fit(architecture: Any, kind: Any, targets: Any) -> str | None:
    boxes = have_boxes(kind, targets)
    if architecture is None or (architecture in names.DETECTORS) == boxes:
        return None
    if boxes:
        wanted = f"{names.DETECTORS[0]} to {names.DETECTORS[-1]}, or a model of your own"
        return f"received {architecture}, which finds no boxes, with data of boxes; expected {wanted}"
    return f"received {architecture}, which learns boxes, with {DATA}.kind {kind}; expected {BOX_DATA}"


def _for_boxes(section: Any, kind: Any, targets: Any) -> str | None:
    stated = dict(Detection.model_validate(plain(section)))
    usual = dict(Detection())
    changed = [key for key, value in stated.items() if value != usual[key]]
    if not changed or have_boxes(kind, targets):
        return None
    return f"received {', '.join(changed)}, but {kind} data have no boxes; expected it with {BOX_DATA}"


def _thresholds_fit(negative: Any, positive: Any) -> str | None:
    if negative <= positive:
        return None
    return f"received {negative}, above positive_iou: {positive}; expected at most that"


def _labels_named(labels: Any, images: Any) -> str | None:
    if images is not None and labels is None:
        return f"is null, expected the name of the labels of x_test {images!r}"
    if images is None and labels not in (None, "y_test"):
        return f"received {labels!r}, which is not read since x_test is null; expected null"
    return None


def _held_out(fraction: Any, images: Any, kind: Any) -> str | None:
    if kind != "npz" or (fraction is None) != (images is None):
        return None
    if fraction is None:
        return "is missing; expected a number between 0 and 1, since x_test is null and no images are held out"
    return f"received {fraction} beside x_test {images!r}; expected one of them; x_test: null holds the fraction out"


CHECKS = (
    on(ARCHITECTURE, _data_fit, KIND, f"{DATA}.targets"),
    on(DETECTION, _for_boxes, KIND, f"{DATA}.targets"),
    on(f"{DETECTION}.negative_iou", _thresholds_fit, f"{DETECTION}.positive_iou"),
    on(f"{DETECTION}.huber_delta", only_for(("huber",), 0.1), f"{DETECTION}.box_loss"),
    on(f"{DATA}.y_test", _labels_named, f"{DATA}.x_test"),
    on(f"{DATA}.validation_fraction", _held_out, f"{DATA}.x_test", KIND),
)
