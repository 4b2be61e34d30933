"""Criterion: focal loss of the classes, Huber or overlap loss of the boxes, AP50."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfqat.detection.keras_losses import HUBER, BoxLoss, ClassLoss
from tfqat.detection.losses import BOX_WEIGHT
from tfqat.detection.matching import targets
from tfqat.tasks.compiled import compile_with
from tfqat.tasks.detection.meter import FIGURE, FIGURES, DetectionMeter
from tfqat.tasks.detection.outputs import BOXES, CLASSES, ORDER

# An overlap loss is of the size of the class loss by itself.
OVERLAP_WEIGHT = 1.0


@dataclass(frozen=True)
class DetectionCriterion:
    """See :class:`tfqat.training.criterion.Criterion`.

    Attributes:
        section: the spec's ``detection_config``.
        image_size: height and width.
        anchors: ``(anchors, 4)``.
        meter: makes an empty Meter.
    """

    section: Any
    image_size: tuple[int, int]
    anchors: np.ndarray
    meter: Callable[[], DetectionMeter]
    figure: str = FIGURE
    outputs: str = "values"

    def batches(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """Images with what their anchors learn, as the losses take it."""
        learnt = data.map(lambda images, wanted: (images, self._learnt(wanted)), tf.data.AUTOTUNE)
        return learnt.prefetch(tf.data.AUTOTUNE)

    def compile(self, model: keras.Model, optimizer: Any = None) -> None:
        """Compiles with a loss for each output."""
        compile_with(model, optimizer, self._losses, loss_weights=self._weights)

    def evaluate(self, model: keras.Model, batches: tf.data.Dataset) -> Mapping[str, float]:
        """The losses as training has them, without terms of weights; AP50 and AP."""
        meter, losses = self.meter(), list[dict[str, float]]()
        for images, wanted, learnt in batches.map(self._with_learnt, tf.data.AUTOTUNE):
            given = model.predict_on_batch(images)
            losses.append({name: self._loss(name, learnt, given) for name in ORDER})
            meter.add([given[name] for name in ORDER], wanted)
        means = {f"{name}_loss": float(np.mean([loss[name] for loss in losses])) for name in ORDER}
        total = sum(weight * means[f"{name}_loss"] for name, weight in self._weights.items())
        # Boxes that are not finite cannot be measured; by the loss, training goes back.
        figures = meter.figures() if np.isfinite(total) else dict.fromkeys(FIGURES, 0.0)
        return {"loss": total, **means, **figures}

    @property
    def _losses(self) -> dict[str, keras.losses.Loss]:
        section = self.section
        boxes = BoxLoss(
            section.box_loss, section.huber_delta, self.image_size, section.anchor_scale, section.aspect_ratios
        )
        return {CLASSES: ClassLoss(section.focal_alpha, section.focal_gamma), BOXES: boxes}

    @property
    def _weights(self) -> dict[str, float]:
        usual = BOX_WEIGHT if self.section.box_loss == HUBER else OVERLAP_WEIGHT
        return {CLASSES: 1.0, BOXES: usual if self.section.box_weight is None else self.section.box_weight}

    def _loss(self, name: str, learnt: Any, given: Any) -> float:
        return float(keras.ops.convert_to_numpy(self._losses[name](learnt[name].numpy(), given[name])))

    def _with_learnt(self, images: tf.Tensor, wanted: Mapping[str, tf.Tensor]) -> tuple[Any, ...]:
        return images, wanted, self._learnt(wanted)

    def _learnt(self, wanted: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rows = tf.map_fn(
            lambda row: self._of_one(*row),
            (wanted["boxes"], wanted["classes"], wanted["crowd"]),
            fn_output_signature=tf.TensorSpec((len(self.anchors), 5), tf.float32),
        )
        return {CLASSES: tf.cast(rows[..., 4], tf.int32), BOXES: rows}

    def _of_one(self, boxes: tf.Tensor, classes: tf.Tensor, crowd: tf.Tensor) -> tf.Tensor:
        """Code and class of each anchor of one image, ``(anchors, 5)``."""
        if keras.backend.backend() != "tensorflow":  # keras.ops cannot be traced into a tf.data pipeline then
            rows = tf.numpy_function(self._matched, (boxes, classes, crowd), tf.float32)
            return tf.ensure_shape(rows, (len(self.anchors), 5))
        return self._matched(boxes, classes, crowd)

    def _matched(self, boxes: Any, classes: Any, crowd: Any) -> Any:
        thresholds = self.section.positive_iou, self.section.negative_iou
        learnt, codes = targets(self.anchors, boxes, classes, *thresholds, crowd=crowd)
        rows = keras.ops.concatenate([codes, keras.ops.cast(learnt, "float32")[:, None]], axis=-1)
        return rows if isinstance(boxes, tf.Tensor) else keras.ops.convert_to_numpy(rows)
