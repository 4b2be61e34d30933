"""Tail: what follows a detector's raw outputs in a file: scores, boxes in pixels, suppression, places to put the best.

Every format keeps the same detections: each class is suppressed for itself, and of all classes together the highest
scores stay, at most ``max_detections`` an image. Places that nothing was found for hold zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfqat.errors import TfqatError

# Of all that a tail adds to a file: nodes, operators, tensors, constants.
PREFIX = "detections/"
# Names as EfficientNMS_TRT gives them: how many places are filled, then what is in them, by falling score.
COUNT, BOXES, SCORES, CLASSES = "num_detections", "detection_boxes", "detection_scores", "detection_classes"
COORDINATES = 4

Shape = Sequence[int | None]


class TailError(TfqatError):
    """A tail that cannot be put on a file, or a file whose tail is not as this package writes it."""


@dataclass(frozen=True, eq=False)
class Tail:
    """How a file's raw outputs become detections.

    Attributes:
        anchors: ``(anchors, 4)``, ``ymin, xmin, ymax, xmax`` in pixels, in the order of the outputs.
        image_size: height and width that the anchors are for.
        class_logits: name of the file's output ``(batch, anchors, classes)``.
        box_regression: name of the file's output ``(batch, anchors, 4)``, codes as ``detection.boxes.encode`` makes.
        score_threshold: scores below it are left out. At 0.05 hardly any mAP is lost and a reader can still choose;
            a higher one makes suppression faster.
        iou_threshold: overlap above which a box goes.
        max_detections: places of an image.
    """

    anchors: np.ndarray
    image_size: tuple[int, int]
    class_logits: str = "class_logits"
    box_regression: str = "box_regression"
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchors", np.asarray(self.anchors, np.float32))
        if problem := self._problem():
            raise TailError(f"Tail: {problem}.")

    @property
    def middles(self) -> np.ndarray:
        """``(anchors, 2)``: y and x of the anchors' middles, as ``detection.boxes.decode`` rounds them."""
        return (self.anchors[:, :2] + self.anchors[:, 2:]) / 2

    @property
    def sizes(self) -> np.ndarray:
        """``(anchors, 2)``: height and width of the anchors."""
        return self.anchors[:, 2:] - self.anchors[:, :2]

    def classes_of(self, logits: Shape, codes: Shape) -> int:
        """How many classes raw outputs of these shapes have; None is a size that the file leaves open.

        Raises:
            TailError: the outputs do not belong to these anchors: other axes, or another number of anchors.
        """
        count = len(self.anchors)
        _check_shape(self.class_logits, logits, f"(batch, {count}, classes)", count, logits[-1] if logits else None)
        _check_shape(self.box_regression, codes, f"(batch, {count}, {COORDINATES})", count, COORDINATES)
        return int(logits[2] or 0)

    def _problem(self) -> str:
        anchors, size = self.anchors, tuple(self.image_size)
        if anchors.ndim != 2 or anchors.shape[1] != COORDINATES or not len(anchors):
            return f"anchors: expected the shape (anchors, {COORDINATES}), received {anchors.shape}"
        if not (np.isfinite(anchors).all() and (self.sizes > 0).all()):
            return "anchors: expected finite boxes ymin, xmin, ymax, xmax of some height and width"
        if len(size) != 2 or not all(side > 0 for side in size):
            return f"image_size: expected height and width in pixels, received {self.image_size}"
        if self.class_logits == self.box_regression:
            return f"class_logits and box_regression: expected two outputs, received {self.class_logits!r} for both"
        if not 0 <= self.score_threshold < 1:
            return f"score_threshold: expected 0 to below 1, received {self.score_threshold}"
        # LiteRT refuses an overlap of 0, which the others take.
        if not (math.isfinite(self.iou_threshold) and 0 < self.iou_threshold <= 1):
            return f"iou_threshold: expected above 0 to 1, received {self.iou_threshold}"
        if not (isinstance(self.max_detections, int) and self.max_detections > 0):
            return f"max_detections: expected an integer of at least 1, received {self.max_detections!r}"
        return ""


def _check_shape(name: str, shape: Shape, told: str, count: int, last: int | None) -> None:
    if len(shape) != 3 or shape[1] != count or not last or shape[2] != last:
        raise TailError(
            f"{name}: expected the shape {told}, a row for each of the {count} anchors, received "
            f"({', '.join('?' if size is None else str(size) for size in shape)}). Make the anchors for the image size "
            f"and the layout that the model has."
        )


def refuse_missing(wanted: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses raw outputs that a file has not.

    Raises:
        TailError: names those that it has.
    """
    missing = [name for name in wanted if name not in outputs]
    if missing:
        raise TailError(
            f"The file has no output {' and no output '.join(missing)}; it has {', '.join(outputs)}. Name the class "
            f"logits and the box regression as the file does."
        )


def refuse_clash(taken: Sequence[str]) -> None:
    """Refuses a file that has names that a tail would bring.

    Raises:
        TailError: names them.
    """
    own = (COUNT, BOXES, SCORES, CLASSES)
    clash = [name for name in taken if name in own or name.startswith(PREFIX)]
    if clash:
        raise TailError(
            f"The file has {', '.join(sorted(set(clash))[:8])} already, names that a tail brings. Put a tail on a file "
            f"with raw outputs, and call none of its layers {', '.join(own)} or {PREFIX}..."
        )
