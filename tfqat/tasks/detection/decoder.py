"""Decoder: the raw outputs of a detector as boxes, scores and classes of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops

from tfqat.detection.boxes import decode
from tfqat.detection.nms import Detections, suppress
from tfqat.tasks.detection.outputs import FINISHED


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

    def detections(self, outputs: Sequence[np.ndarray]) -> list[Detections]:
        """Those of each image of a batch, in pixels of the model's input, by falling score.

        Args:
            outputs: box regression ``(batch, anchors, 4)`` and class logits ``(batch, anchors, classes)``; or the
                arrays of ``outputs.FINISHED``, whose file had thresholds of its own.
        """
        if len(outputs) == len(FINISHED):
            return [self._shown(*image) for image in zip(*outputs, strict=True)]
        regression, logits = outputs
        boxes = np.asarray(ops.convert_to_numpy(decode(np.asarray(regression, np.float32), self.anchors)))
        scores = 1 / (1 + np.exp(-np.asarray(logits, np.float32).clip(-80, 80)))
        return [
            suppress(*image, self.iou_threshold, self.score_threshold, self.max_detections)
            for image in zip(boxes, scores, strict=True)
        ]

    def _shown(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, count: np.ndarray) -> Detections:
        there = np.arange(len(scores)) < int(np.reshape(count, -1)[0])
        there &= scores >= self.score_threshold
        return Detections(boxes[there], scores[there], classes[there].astype(np.int32))
