"""Keras losses: those of a detector's two outputs, as a model is compiled with them and saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfqat.detection.anchors import Anchors, anchor_boxes
from tfqat.detection.losses import ALPHA, DELTA, GAMMA, box_loss, class_loss, overlap_loss

HUBER = "huber"


@keras.saving.register_keras_serializable("tfqat")
class ClassLoss(keras.losses.Loss):
    """``losses.class_loss`` of classes ``(batch, anchors)`` and logits ``(batch, anchors, num_classes)``."""

    def __init__(self, alpha: float = ALPHA, gamma: float = GAMMA, name: str = "class_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.alpha, self.gamma = alpha, gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return class_loss(ops.cast(y_true, "int32"), y_pred, self.alpha, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}


@keras.saving.register_keras_serializable("tfqat")
class BoxLoss(keras.losses.Loss):
    """The loss of box regression ``(batch, anchors, 4)``; what is wanted has the class behind the code, ``(batch,
    anchors, 5)``.

    Args:
        kind: ``huber``, or an overlap of ``losses.OVERLAPS``.
        delta: of Huber.
        image_size: height and width, by which overlaps know the anchors.
        anchor_scale, aspect_ratios: likewise.
    """

    def __init__(
        self,
        kind: str = HUBER,
        delta: float = DELTA,
        image_size: Sequence[int] = (),
        anchor_scale: float = 4.0,
        aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5),
        name: str = "box_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.kind, self.delta = kind, delta
        self.image_size, self.anchor_scale, self.aspect_ratios = tuple(image_size), anchor_scale, tuple(aspect_ratios)
        if kind != HUBER:
            self._anchors = anchor_boxes(self.image_size, Anchors(ratios=self.aspect_ratios, scale=anchor_scale))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        codes, classes = y_true[..., :4], ops.cast(y_true[..., 4], "int32")
        if self.kind == HUBER:
            return box_loss(classes, codes, y_pred, self.delta)
        return overlap_loss(classes, codes, y_pred, self._anchors, self.kind)

    def get_config(self) -> dict[str, Any]:
        names = ("kind", "delta", "image_size", "anchor_scale", "aspect_ratios")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
