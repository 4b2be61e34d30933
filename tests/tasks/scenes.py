"""Scenes without files: batches of targets, and outputs that mean given boxes."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tfqat.detection.anchors import anchor_boxes
from tfqat.models.efficientdet.model import efficientdet

SIZE = (128, 128)
ANCHORS = anchor_boxes(SIZE)


def overlaps(box, others):
    """IoU by numpy alone."""
    box, others = np.asarray(box, np.float64), np.asarray(others, np.float64)
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def code_of(box, anchor):
    """``dy / ha, dx / wa, log(h / ha), log(w / wa)`` by numpy alone."""
    (y1, x1, y2, x2), (a1, b1, a2, b2) = np.asarray(box, np.float64), np.asarray(anchor, np.float64)
    ha, wa = a2 - a1, b2 - b1
    return np.array([
        ((y1 + y2) - (a1 + a2)) / 2 / ha, ((x1 + x2) - (b1 + b2)) / 2 / wa,
        np.log((y2 - y1) / ha), np.log((x2 - x1) / wa),
    ])  # fmt: skip


def box_of(codes, anchors):
    """The inverse of ``code_of``, of arrays."""
    codes, anchors = np.asarray(codes, np.float64), np.asarray(anchors, np.float64)
    sizes = anchors[:, 2:] - anchors[:, :2]
    middles = (anchors[:, 2:] + anchors[:, :2]) / 2 + codes[:, :2] * sizes
    halves = np.exp(codes[:, 2:]) * sizes / 2
    return np.concatenate([middles - halves, middles + halves], 1)


def saying(found, classes):
    """Raw outputs of a batch, which mean for each image the given (box, class, score); pixels of the input."""
    codes = np.zeros((len(found), len(ANCHORS), 4), np.float32)
    logits = np.full((len(found), len(ANCHORS), classes), -20.0, np.float32)
    for row, image in enumerate(found):
        for box, label, score in image:
            free = overlaps(box, ANCHORS) * (logits[row].max(1) < -19)
            place = int(free.argmax())
            codes[row, place] = code_of(box, ANCHORS[place])
            logits[row, place, label] = np.log(score / (1 - score))
    return [codes, logits]


def truths(images, size=SIZE, scale=1.0):
    """Targets as the pipeline gives them in validation; of each image (box, class, crowd) in pixels of the input."""
    most, count = max((len(image) for image in images), default=0), len(images)
    boxes, classes = np.zeros((count, most, 4), np.float32), np.full((count, most), -1, np.int32)
    crowd, areas = np.zeros((count, most), bool), np.zeros((count, most), np.float32)
    for row, image in enumerate(images):
        for place, (box, label, many) in enumerate(image):
            boxes[row, place], classes[row, place], crowd[row, place] = box, label, many
            areas[row, place] = (box[2] - box[0]) * (box[3] - box[1]) / scale**2
    whole = {"scale": np.full((count, 2), scale, np.float32), "size": np.tile(np.float32(size), (count, 1))}
    return {"boxes": boxes, "classes": classes, "crowd": crowd, "areas": areas, **whole}


def backbone(input_shape):
    """Two convolutions a stride."""
    x = image = keras.Input(input_shape, name="image")
    x = layers.Rescaling(1 / 255, name="scale")(x)
    for number, width in enumerate((4, 4, 8, 8, 8), 1):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.ReLU(6, name=f"act{number}")(x)
    return keras.Model(image, x, name="tiny")


def detector():
    """A tiny one for three classes whose boxes and scores differ from place to place."""
    keras.utils.set_random_seed(3)
    sizes = {"width": 8, "depth": 1, "head_depth": 1}
    model = efficientdet("efficientdet_d0", (*SIZE, 3), 3, "relu6", backbone=backbone((*SIZE, 3)), **sizes)
    generator = np.random.default_rng(5)
    for name, spread in (("class_last", 2.0), ("box_last", 0.3)):
        layer = model.get_layer(name)
        layer.pointwise_kernel.assign(generator.normal(0, spread, layer.pointwise_kernel.shape))
        layer.bias.assign(generator.normal(0, spread / 4, layer.bias.shape) - 3 * (name == "class_last"))
    return model
