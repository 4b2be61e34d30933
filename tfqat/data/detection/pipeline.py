"""Pipeline: Readings as seeded tf.data streams of images of the model's size and their padded boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfqat.data.detection.augment import Augment, augmented, fitting, placed
from tfqat.data.detection.clean import Reading
from tfqat.data.encoded_image import decode
from tfqat.data.image_folder import PREPROCESSING
from tfqat.data.pipeline import Data, HeldOut, calibration_order, in_order, shuffled_epochs
from tfqat.errors import TfqatError

PADDING = -1  # the class of a row that is no box
# The splits, as messages name them.
TRAINING, VALIDATION = "training", "validation"
Targets = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Input:
    """What the model takes.

    Attributes:
        size: (height, width).
        preprocessing: how pixels are normalized, a key of `image_folder.PREPROCESSING`.
        max_level: the coarsest feature level; each of its cells is ``2 ** max_level`` pixels wide.
    """

    size: tuple[int, int]
    preprocessing: str = "torch"
    max_level: int = 7

    def __post_init__(self) -> None:
        cell = 2**self.max_level
        if any(side < cell or side % cell for side in self.size):
            near = [max(round(side / cell), 1) * cell for side in self.size]
            raise TfqatError(
                f"An image of {self.size[0]} x {self.size[1]} has no whole cells at level {self.max_level}: expected "
                f"multiples of {cell}, such as {near[0]} x {near[1]}."
            )


@dataclass(frozen=True, eq=False)
class _Rows:
    """A Reading as tensors, one row an image; the boxes of image k are ``starts[k]`` to ``starts[k + 1]``."""

    paths: tf.Tensor
    places: tf.Tensor  # offset, length and what follows it in the file
    starts: tf.Tensor
    boxes: tf.Tensor
    classes: tf.Tensor
    crowd: tf.Tensor
    areas: tf.Tensor


def load(
    train: Reading, validation: Reading, model: Input, batch_size: int, seed: int, augment: Augment | None = None
) -> Data:
    """Batches of images ``(batch, height, width, 3)`` with, for each image, as many rows as the split's fullest one has
    boxes:

    - ``boxes`` ``(batch, rows, 4)`` float32: ymin, xmin, ymax, xmax in pixels of the model's input; 0 in padding;
    - ``classes`` ``(batch, rows)`` int32: index into the class map; -1 marks padding;
    - ``crowd`` ``(batch, rows)`` bool

    and, in validation and calibration,

    - ``areas`` ``(batch, rows)`` float32: square pixels of the image itself, by which evaluation calls objects small;
    - ``size`` ``(batch, 2)`` float32: height and width of the image itself;
    - ``scale`` ``(batch, 2)`` float32, downwards and across: boxes divided by it lie in the image's own pixels;
    - ``index`` ``(batch,)`` int64: the image's place among the Examples.

    The aspect ratio is kept; what is left over at the bottom and at the right is 0 after normalization. An epoch is a
    function of the seed and its number alone.

    Raises:
        TfqatError: a split without images, or two splits of different classes.
    """
    _check_images(train, TRAINING)
    held = held_out(validation, model, batch_size)
    check_same_classes(train.class_map.names, validation.class_map.names)  # the numbers are each file's own
    rows, most = _rows(train), _most(train)
    count, size = len(train.examples), min(batch_size, len(train.examples))
    random = _random(rows, model, most, augment or Augment(), seed)
    return Data(
        train_from=lambda epoch: shuffled_epochs(count, random, size, seed, epoch),
        steps=count // size,
        calibration=in_order(calibration_order(count, seed), _plain(rows, model, most), size),
        validation=held.validation,
        num_classes=held.num_classes,
        input_shape=held.input_shape,
        class_names=held.class_names,
    )


def held_out(validation: Reading, model: Input, batch_size: int) -> HeldOut:
    """The validation batches of :func:`load`.

    Raises:
        TfqatError: a split without images.
    """
    _check_images(validation, VALIDATION)
    plain = _plain(_rows(validation), model, _most(validation))
    return HeldOut(
        validation=in_order(np.arange(len(validation.examples)), plain, batch_size),
        num_classes=len(validation.class_map.names),
        input_shape=(*model.size, 3),
        class_names=validation.class_map.names,
    )


def check_same_classes(training: tuple[str, ...], validation: tuple[str, ...]) -> None:
    """Raises TfqatError for two splits of different classes."""
    if training != validation:
        raise TfqatError(
            f"Both splits need one class map; training has {', '.join(training)}, validation {', '.join(validation)}. "
            "Read both with the same classes."
        )


def _check_images(reading: Reading, split: str) -> None:
    if not reading.examples:
        raise TfqatError(f"The {split} split has no image that can be used.\n{reading.report}")


def _most(reading: Reading) -> int:
    """Boxes of the fullest image; at least one, since nothing can be indexed in no rows."""
    return max(1, max(len(one.boxes) for one in reading.examples))


def _rows(reading: Reading) -> _Rows:
    sources = [one.image for one in reading.examples]
    totals = [source.path.stat().st_size for source in sources]
    lengths = [
        total - source.offset if source.length is None else source.length
        for source, total in zip(sources, totals, strict=True)
    ]
    places = [
        (source.offset, length, total - source.offset - length)
        for source, length, total in zip(sources, lengths, totals, strict=True)
    ]
    counts = [len(one.boxes) for one in reading.examples]
    return _Rows(
        paths=tf.constant([str(source.path) for source in sources]),
        places=tf.constant(places, tf.int64),
        starts=tf.constant(np.cumsum([0, *counts]), tf.int64),
        boxes=tf.constant(np.concatenate([one.boxes for one in reading.examples])),
        classes=tf.constant(np.concatenate([one.classes for one in reading.examples])),
        crowd=tf.constant(np.concatenate([one.crowd for one in reading.examples])),
        areas=tf.constant(np.concatenate([one.areas for one in reading.examples])),
    )


def _image(rows: _Rows, index: tf.Tensor) -> tf.Tensor:
    """Only the image's own bytes are read: its file may be a TFRecord of gigabytes."""
    offset, length, rest = tf.unstack(rows.places[index])
    part = tf.data.FixedLengthRecordDataset(rows.paths[index], length, header_bytes=offset, footer_bytes=rest)
    return tf.cast(tf.ensure_shape(decode(part.get_single_element()), (None, None, 3)), tf.float32)


def _plain(rows: _Rows, model: Input, most: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, Targets]]:
    """Index -> image and targets, whole and as it is."""

    def element(index: tf.Tensor) -> tuple[tf.Tensor, Targets]:
        own = _targets(rows, index)
        image, boxes, whole = fitted(_image(rows, index), own["boxes"], model)
        areas = rows.areas[rows.starts[index] : rows.starts[index + 1]]
        return image, _padded(own | {"boxes": boxes, "areas": areas}, most) | whole | {"index": index}

    return element


def fitted(image: tf.Tensor, boxes: tf.Tensor, model: Input) -> tuple[tf.Tensor, tf.Tensor, Targets]:
    """RGB from 0 to 255 as the model takes it, whole; the boxes with it; ``size`` and ``scale`` as of ``load``."""
    shape = tf.shape(image)[:2]
    scaled = fitting(shape[0], shape[1], model.size)
    placed_image, placed_boxes = placed(image, boxes, model.size, scaled, tf.zeros(2, tf.int32))
    size = tf.cast(shape, tf.float32)
    whole = {"scale": tf.cast(scaled, tf.float32) / size, "size": size}
    return _normalized(placed_image, model), placed_boxes, whole


def _random(
    rows: _Rows, model: Input, most: int, wish: Augment, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, Targets]]:
    """Index and epoch -> image and targets, augmented."""

    def element(index: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, Targets]:
        own = _targets(rows, index)
        draw = tf.stack([tf.constant(seed, tf.int64), epoch * rows.paths.shape[0] + index])
        image, boxes, stays = augmented(_image(rows, index), own["boxes"], model.size, wish, draw)
        left = {name: tf.boolean_mask(value, stays) for name, value in (own | {"boxes": boxes}).items()}
        return _normalized(image, model), _padded(left, most)

    return element


def _targets(rows: _Rows, index: tf.Tensor) -> Targets:
    begin, end = rows.starts[index], rows.starts[index + 1]
    return {"boxes": rows.boxes[begin:end], "classes": rows.classes[begin:end], "crowd": rows.crowd[begin:end]}


def _normalized(image: tf.Tensor, model: Input) -> tf.Tensor:
    """As the model takes it: padded to its size after normalization, so that the padding is 0."""
    (height, width), spare = model.size, tf.constant(model.size) - tf.shape(image)[:2]
    image = tf.pad(PREPROCESSING[model.preprocessing](image), [[0, spare[0]], [0, spare[1]], [0, 0]])
    return tf.ensure_shape(image, (height, width, 3))


def _padded(targets: Targets, most: int) -> Targets:
    spare = most - tf.shape(targets["classes"])[0]

    def filled(name: str, value: tf.Tensor) -> tf.Tensor:
        filling = PADDING if name == "classes" else 0
        padded = tf.pad(
            value, [[0, spare], *[[0, 0]] * (value.shape.rank - 1)], constant_values=tf.cast(filling, value.dtype)
        )
        return tf.ensure_shape(padded, (most, *value.shape[1:]))

    return {name: filled(name, value) for name, value in targets.items()}
