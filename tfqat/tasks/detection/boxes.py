"""Boxes: what a detector says of one image, as files have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfqat.detection.nms import Detections


@dataclass(frozen=True)
class Boxes:
    """See :class:`tfqat.tasks.task.Finding`.

    Attributes:
        found: in the image's own pixels.
        names: of the classes.
    """

    found: Detections
    names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        keys = ("label", "confidence", "xmin", "ymin", "xmax", "ymax")
        return {"objects": [dict(zip(keys, row, strict=True)) for row in self.rows()]}

    def rows(self) -> list[tuple[Any, ...]]:
        """Label, confidence, xmin, ymin, xmax, ymax of each box, by falling confidence."""
        found = self.found
        return [
            (self.names[label], round(float(score), 6), *(round(float(box[place]), 2) for place in (1, 0, 3, 2)))
            for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True)
        ]
