"""Detection: the task of a spec whose data are boxes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from tfqat import data as datasets
from tfqat.data.pipeline import Data
from tfqat.detection.anchors import Anchors, anchor_boxes
from tfqat.tasks.detection.criterion import DetectionCriterion
from tfqat.tasks.detection.decoder import Decoder
from tfqat.tasks.detection.meter import FIGURE, DetectionMeter
from tfqat.tasks.detection.outputs import ORDER, check_outputs, num_classes_of


@dataclass(frozen=True)
class Detection:
    """See :class:`tfqat.tasks.task.Task`."""

    spec: Any
    figure: str = FIGURE
    outputs: int = len(ORDER)

    def check(self, model: keras.Model, source: str) -> None:
        """Class logits and box regression of the anchors of the spec's images."""
        check_outputs(model, source, len(self.anchors), self.spec.model.num_classes)

    def data(self, model: keras.Model | None = None) -> Data:
        """Images with padded boxes."""
        classes = self.spec.model.num_classes if model is None else num_classes_of(model)
        return datasets.load(self.spec.dataset, self.spec.random_seed, classes)

    def criterion(self, model: keras.Model, data: Data) -> DetectionCriterion:
        """The losses that ``detection_config`` asks for, and AP50."""
        return DetectionCriterion(self.section, self.image_size, self.anchors, lambda: self.meter(data))

    def meter(self, data: Data) -> DetectionMeter:
        """Average precision."""
        names = data.class_names or tuple(str(number) for number in range(data.num_classes or 0))
        return DetectionMeter(self.decoder, names)

    @property
    def section(self) -> Any:
        """The spec's ``detection_config``."""
        return self.spec.detection

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's images."""
        height, width, _ = self.spec.model.input_shape or datasets.input_shape(self.spec.dataset)
        return height, width

    @cached_property
    def anchors(self) -> np.ndarray:
        """All anchors of an image, ``(anchors, 4)``."""
        layout = Anchors(ratios=self.section.aspect_ratios, scale=self.section.anchor_scale)
        return anchor_boxes(self.image_size, layout)

    @property
    def decoder(self) -> Decoder:
        """How boxes are read from the outputs."""
        section = self.section
        return Decoder(self.anchors, section.iou_threshold, section.score_threshold, section.max_detections)
