"""Plugin runner: a model with EfficientNMS_TRT without TensorRT: onnxruntime up to the plugin, numpy in its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tfqat.detection.nms import Detections, suppress
from tfqat.tails.tail import BOXES, CLASSES, COORDINATES, COUNT, SCORES
from tfqat.tails.tensorrt_nms import CANDIDATES, before_plugin, check, plugin_node, settings_of
from tfqat.verification.runner import Runner

# The plugin's threshold of logits where all scores are asked for.
BELOW_ALL = -(2.0**15)


class PluginRunner(Runner):
    """One loaded model; its outputs are those of the file.

    Raises:
        TailError: the model has no such plugin, or not as ``tensorrt_nms.with_nms`` writes it.
    """

    def __init__(self, model: onnx.ModelProto, optimize: bool = False) -> None:
        check(model)
        super().__init__(before_plugin(model), optimize)
        node = plugin_node(model)
        self._read, self._settings = tuple(node.input), settings_of(node)
        self.outputs = tuple(info.name for info in model.graph.output)

    def run(self, values: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Output name -> value, of the detections.

        Raises:
            RunError: an input is missing or has another shape or type.
        """
        boxes, logits = super().run(values, self._read).values()
        found = _stacked([self._kept(*image) for image in zip(boxes, logits, strict=True)], self._most)
        return {name: found[name] for name in (outputs or self.outputs)}

    @property
    def _most(self) -> int:
        return self._settings["max_output_boxes"]

    def _kept(self, boxes: np.ndarray, logits: np.ndarray) -> Detections:
        # The plugin drops a box also where the overlap is the threshold.
        overlap = np.nextafter(np.float64(self._settings["iou_threshold"]), 0)
        lowest = self._settings["score_threshold"]
        threshold = math.log(lowest / (1 - lowest)) if lowest > 0 else BELOW_ALL
        return suppress(boxes, logits, overlap, threshold, self._most, CANDIDATES)


def _stacked(images: Sequence[Detections], most: int) -> dict[str, np.ndarray]:
    """The outputs of a batch; logits become scores."""
    shapes: dict[str, Any] = {BOXES: ((most, COORDINATES), np.float32), SCORES: (most, np.float32)}
    shapes[CLASSES] = (most, np.int32)
    made = {name: np.zeros((len(images), *np.atleast_1d(shape)), dtype) for name, (shape, dtype) in shapes.items()}
    for index, image in enumerate(images):
        count = len(image.scores)
        made[BOXES][index, :count], made[CLASSES][index, :count] = image.boxes, image.classes
        with np.errstate(over="ignore"):
            made[SCORES][index, :count] = 1 / (1 + np.exp(-image.scores))
    made[COUNT] = np.array([[len(image.scores)] for image in images], np.int32).reshape(-1, 1)
    return made
