"""Meter: what a detector finds in images, held against their boxes by mean average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from tfqat.detection.mean_ap import AP, MeanAP, mean_ap
from tfqat.detection.nms import Detections
from tfqat.errors import TfqatError
from tfqat.tasks.detection.decoder import Decoder

FIGURE = "AP50"
FIGURES = (FIGURE, "AP")
COLUMNS = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "small", "medium": "medium", "large": "large"}


@dataclass(frozen=True)
class Truth:
    """The objects of one image in its own pixels; see :class:`tfqat.detection.mean_ap.Truth`."""

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


@dataclass
class DetectionMeter:
    """See :class:`tfqat.tasks.task.Meter`."""

    decoder: Decoder
    names: tuple[str, ...]
    truths: list[Truth] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)

    def add(self, outputs: Sequence[np.ndarray], targets: Mapping[str, Any]) -> None:
        """Adds raw outputs, box regression and class logits, and the targets of `data.detection.pipeline`."""
        wanted = {name: np.asarray(value) for name, value in targets.items()}
        for row, one in enumerate(self.decoder.detections(outputs)):
            scale, size = wanted["scale"][row], wanted["size"][row]
            self.found.append(in_own_pixels(one, scale, size))
            self.truths.append(_truth(wanted, row, scale))

    def figures(self) -> dict[str, float]:
        """AP50 and AP."""
        mean = self._measured().mean
        return dict(zip(FIGURES, (mean.ap50 or 0.0, mean.ap or 0.0), strict=True))

    def figure(self) -> float:
        """AP50, the mean over the classes."""
        return self.figures()[FIGURE]

    def result(self) -> DetectionResult:
        """Mean average precision, and that of each class."""
        return DetectionResult(len(self.truths), sum(len(truth.boxes) for truth in self.truths), self._measured())

    def _measured(self) -> MeanAP:
        if not any(len(truth.boxes) for truth in self.truths):
            raise TfqatError("The validation data have no box, so nothing can be measured; name a split with boxes.")
        return mean_ap(self.truths, self.found, self.names)


def in_own_pixels(found: Detections, scale: np.ndarray, size: np.ndarray) -> Detections:
    """Boxes of the model's input in the pixels of the image that it was made of, not beyond it; what lies in the
    padding alone is left out.

    Args:
        scale: ``(2,)``: how many pixels of the input one of the image is, downwards and across.
        size: ``(2,)``: height and width of the image.
    """
    boxes = np.clip(found.boxes / np.tile(scale, 2), 0, np.tile(size, 2)).astype(np.float32)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Detections(boxes[inside], found.scores[inside], found.classes[inside])


def _truth(targets: Mapping[str, np.ndarray], row: int, scale: np.ndarray) -> Truth:
    there = targets["classes"][row] >= 0
    values = {name: targets[name][row][there] for name in ("boxes", "classes", "crowd", "areas")}
    return Truth(values["boxes"] / np.tile(scale, 2), values["classes"], values["crowd"], values["areas"])


@dataclass(frozen=True)
class DetectionResult:
    """See :class:`tfqat.tasks.task.Result`.

    Attributes:
        images, boxes: how many it was measured on.
        measured: average precisions.
    """

    images: int
    boxes: int
    measured: MeanAP

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; precisions from 0 to 1, null where there is no object to find."""
        classes = [{"class": name, **_numbers(ap)} for name, ap in self.measured.classes.items()]
        return {"images": self.images, "boxes": self.boxes, **_numbers(self.measured.mean), "classes": classes}

    def tables(self, name: str, run_by: str) -> Any:
        """Of all images, and of each class."""
        whole = Table(title=f"{name}, run by {run_by}: average precision on the validation images")
        for heading in ("images", "boxes", *COLUMNS):
            whole.add_column(heading, justify="right")
        whole.add_row(f"{self.images:,}", f"{self.boxes:,}", *_cells(self.measured.mean))
        each = Table("class", title="Classes")
        for heading in COLUMNS:
            each.add_column(heading, justify="right")
        for label, ap in self.measured.classes.items():
            each.add_row(label, *_cells(ap))
        return Group(whole, each)


def _numbers(ap: AP) -> dict[str, float | None]:
    return {heading: getattr(ap, name) for heading, name in COLUMNS.items()}


def _cells(ap: AP) -> list[str]:
    return ["-" if value is None else f"{value:.2%}" for value in _numbers(ap).values()]
