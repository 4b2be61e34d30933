"""Detection: the task of a spec whose data are boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL.Image import Image

from tfqat import data as datasets
from tfqat.data.image_files import Prepared
from tfqat.data.pipeline import Data, HeldOut
from tfqat.detection.anchors import Anchors, anchor_boxes
from tfqat.detection.drawing import drawn
from tfqat.tails.tail import Tail
from tfqat.tasks.detection.boxes import Boxes
from tfqat.tasks.detection.criterion import DetectionCriterion
from tfqat.tasks.detection.decoder import Decoder
from tfqat.tasks.detection.finish import finish
from tfqat.tasks.detection.finished import is_finished, open_finished
from tfqat.tasks.detection.judge import judged
from tfqat.tasks.detection.meter import FIGURE, DetectionMeter, in_own_pixels
from tfqat.tasks.detection.outputs import ORDER, check_outputs, check_raw, num_classes_of
from tfqat.tasks.task import Entries, Finished, Outputs
from tfqat.verification.model_file import ImageShape, ModelFile

# Boxes of a lower score are counted in evaluation, but would only clutter what a person reads.
SHOWN = 0.3


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
        return datasets.load(self.spec.dataset, self.spec.random_seed, self._num_classes(model))

    def held_out(self, model: keras.Model | None = None) -> HeldOut:
        """Images with padded boxes."""
        return datasets.held_out(self.spec.dataset, self.spec.random_seed, self._num_classes(model))

    def check_arrays(self, name: str, outputs: Outputs, targets: Any, data: HeldOut) -> None:
        """Both outputs, for each anchor and class."""
        check_raw(name, outputs, len(self.anchors), data.num_classes)

    def criterion(self, model: keras.Model, data: HeldOut) -> DetectionCriterion:
        """The losses that ``detection_config`` asks for, and AP50."""
        return DetectionCriterion(self.section, self.image_size, self.anchors, lambda: self.meter(data))

    def meter(self, data: HeldOut, decoder: Decoder | None = None) -> DetectionMeter:
        """Average precision."""
        names = data.class_names or tuple(str(number) for number in range(data.num_classes or 0))
        return DetectionMeter(decoder or self.decoder, names)

    def open_own(self, path: Path, cache: Path | None, precisions: Path | None, shape: ImageShape) -> ModelFile | None:
        """A file with decoding and suppression of its own."""
        return open_finished(path, shape, cache, precisions) if is_finished(path) else None

    def measure(self, data: HeldOut) -> tuple[str, Callable[[], DetectionMeter]]:
        """AP50."""
        return self.figure, lambda: self.meter(data)

    def finish(self, folder: Path, files: Entries) -> Entries:
        """Files with decoding and suppression, where the spec asks for them."""
        return finish(folder, files, self.tail) if self.spec.export.detections == "nms" else {}

    def finished(self, paths: Mapping[str, Path], data: HeldOut) -> Sequence[Finished]:
        """The finished files among ``paths``."""
        decoder = replace(self.decoder, score_threshold=self.spec.export.score_threshold)
        return judged(paths, data, decoder, self.tail, lambda other: self.meter(data, other))

    @property
    def tail(self) -> Tail:
        """What stands behind the raw outputs of finished files."""
        boxes, classes = self.spec.export.output_names or ORDER
        return Tail(
            self.anchors,
            self.image_size,
            class_logits=classes,
            box_regression=boxes,
            score_threshold=self.spec.export.score_threshold,
            iou_threshold=self.section.iou_threshold,
            max_detections=self.section.max_detections,
        )

    def findings(
        self, name: str, outputs: Outputs, given: Sequence[Prepared], names: Sequence[str], threshold: float | None
    ) -> list[Boxes]:
        """The boxes of each image, in its own pixels."""
        check_raw(name, outputs, len(self.anchors), len(names))
        decoder = replace(self.decoder, score_threshold=SHOWN if threshold is None else threshold)
        pairs = zip(decoder.detections(outputs), given, strict=True)
        own = [in_own_pixels(found, np.asarray(one.scale), np.asarray(one.size)) for found, one in pairs]
        return [Boxes(found, tuple(names)) for found in own]

    def drawn(self, image: Image, finding: Any, names: Sequence[str]) -> Image:
        """The image with the boxes and their classes."""
        return drawn(image, finding.found, names)

    def _num_classes(self, model: keras.Model | None) -> int | None:
        return self.spec.model.num_classes if model is None else num_classes_of(model)

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
