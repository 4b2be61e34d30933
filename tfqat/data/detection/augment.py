"""Augment: changes of an image and its boxes together; pure functions of tensors.

Images are float32 RGB from 0 to 255, ``(height, width, 3)``, boxes ``(n, 4)`` ymin, xmin, ymax, xmax in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

# How much each channel counts for the gray of a pixel: ITU-R BT.601.
GRAY = (0.299, 0.587, 0.114)
DRAWS = 7


@dataclass(frozen=True)
class Augment:
    """Random changes of training images.

    Attributes:
        flip: mirrored left to right, half of the time.
        scale: from and to which multiple of the size at which it just fits an image is resized. What is larger than
            the model's input is cut at a random place. None: it just fits, whole.
        min_visible: a box of which cutting leaves a smaller part of its area goes; one of which nothing is left
            always does.
        color: brightness, contrast and saturation are each multiplied by a factor up to that much from 1.
    """

    flip: bool = False
    scale: tuple[float, float] | None = None
    min_visible: float = 0.0
    color: float = 0.0


def fitting(height: tf.Tensor, width: tf.Tensor, size: tuple[int, int], factor: float | tf.Tensor = 1.0) -> tf.Tensor:
    """The largest ``(height, width)`` int32, aspect ratio kept, that fits into ``factor`` times ``size``."""
    own = tf.cast(tf.stack([height, width]), tf.float64)
    limits = tf.constant(size, tf.float64) * tf.cast(factor, tf.float64)
    return tf.maximum(tf.cast(tf.round(own * tf.reduce_min(limits / own)), tf.int32), 1)


def placed(
    image: tf.Tensor, boxes: tf.Tensor, size: tuple[int, int], scaled: tf.Tensor, offset: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The image resized to ``scaled`` (bilinear, antialiased), of that the part from ``offset`` on that ``size`` holds;
    the boxes with it, not yet clipped. The image may be smaller than ``size``: padding follows normalization.
    """
    ratio = tf.cast(scaled, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    part = tf.minimum(tf.constant(size), scaled - offset)
    resized = tf.image.resize(image, scaled, antialias=True)
    cut = tf.slice(resized, tf.concat([offset, [0]], 0), tf.concat([part, [3]], 0))
    return cut, boxes * tf.tile(ratio, [2]) - tf.tile(tf.cast(offset, tf.float32), [2])


def visible(boxes: tf.Tensor, limits: tf.Tensor, min_visible: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes clipped to an image of ``limits`` (height, width), and ``(n,)`` bool: which of them stay."""
    clipped = tf.clip_by_value(boxes, 0.0, tf.tile(tf.cast(limits, boxes.dtype), [2]))
    left = _areas(clipped)
    return clipped, (left > 0) & (left >= min_visible * _areas(boxes))


def flipped(image: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrored left to right."""
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    top, left, bottom, right = tf.unstack(boxes, axis=-1)
    return image[:, ::-1], tf.stack([top, width - right, bottom, width - left], -1)


def colored(image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor, saturation: tf.Tensor) -> tf.Tensor:
    """Each factor times: the image; its distance from its mean; each pixel's distance from its gray."""
    image = image * brightness
    mean = tf.reduce_mean(image)
    image = mean + (image - mean) * contrast
    gray = tf.reduce_sum(image * tf.constant(GRAY), -1, keepdims=True)
    return tf.clip_by_value(gray + (image - gray) * saturation, 0.0, 255.0)


def augmented(
    image: tf.Tensor, boxes: tf.Tensor, size: tuple[int, int], wish: Augment, draw: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A training image, its boxes clipped to it, and ``(n,)`` bool: which of these stay.

    Scale and cut are those of EfficientDet (google/automl, efficientdet/dataloader.py,
    ``set_training_random_scale_factors``).

    Args:
        draw: seed of two int64; the result is a function of it.
    """
    random = tf.random.stateless_uniform((DRAWS,), draw)
    if wish.color:
        image = colored(image, *tf.unstack(1 + wish.color * (2 * random[:3] - 1)))
    low, high = wish.scale or (1.0, 1.0)
    scaled = fitting(tf.shape(image)[0], tf.shape(image)[1], size, low + (high - low) * random[3])
    spare = tf.cast(tf.maximum(scaled - tf.constant(size), 0), tf.float32)
    image, boxes = placed(image, boxes, size, scaled, tf.cast(spare * random[4:6], tf.int32))
    if wish.flip:
        image, boxes = tf.cond(random[6] < 0.5, lambda: flipped(image, boxes), lambda: (image, boxes))
    # Last, since rounding could take the area of a sliver after it.
    boxes, stays = visible(boxes, tf.shape(image)[:2], wish.min_visible)
    return image, boxes, stays


def _areas(boxes: tf.Tensor) -> tf.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
