"""Decoder: the raw outputs of a detector as boxes, scores and classes of each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops

from tfqat.detection.boxes import decode
from tfqat.detection.nms import Detections, suppress


@dataclass(frozen=True)
class Decoder:
    """How detections are read from outputs.

    Attributes:
        anchors: ``(anchors, 4)``.
        iou_threshold: overlap with a better box of its class above which a box goes.
        score_threshold: scores below it are left out.
        max_detections: of one image.
    """

    anchors: np.ndarray
    iou_threshold: float
    score_threshold: float
    max_detections: int

    def detections(self, regression: np.ndarray, logits: np.ndarray) -> list[Detections]:
        """Those of each image of a batch, in pixels of the model's input, by falling score.

        Args:
            regression: ``(batch, anchors, 4)``.
            logits: ``(batch, anchors, classes)``.
        """
        boxes = np.asarray(ops.convert_to_numpy(decode(np.asarray(regression, np.float32), self.anchors)))
        scores = 1 / (1 + np.exp(-np.asarray(logits, np.float32).clip(-80, 80)))
        return [
            suppress(*image, self.iou_threshold, self.score_threshold, self.max_detections)
            for image in zip(boxes, scores, strict=True)
        ]
