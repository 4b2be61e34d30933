"""Python boxes: the objects of a batch of images, as a function of the user's own gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfqat.data.batch_fault import require
from tfqat.data.detection.pipeline import PADDING, Input, Targets
from tfqat.errors import TfqatError

NAME = "boxes"
# Pixels by which rounding may bring a box out of its image.
OVERHANG = 1.0
ROWS = "rows"
PIXELS = "expected ymin, xmin, ymax, xmax in pixels of the model's input"


@dataclass(frozen=True)
class _Array:
    """What stands under one key of the dict.

    Attributes:
        shape: behind the batch; ROWS is as many as the fullest image has boxes.
        holds: a key of _HOLDS.
        dtype: what it becomes.
    """

    shape: tuple[str | int, ...]
    holds: str
    dtype: tf.DType

    def __str__(self) -> str:
        return f"{self.holds} of shape ({', '.join(map(str, ('batch', *self.shape)))})"


_ARRAYS = {
    "classes": _Array((ROWS,), "integers", tf.int32),
    "boxes": _Array((ROWS, 4), "numbers", tf.float32),
    "crowd": _Array((ROWS,), "booleans", tf.bool),
    "areas": _Array((ROWS,), "numbers", tf.float32),
    "size": _Array((2,), "numbers", tf.float32),
    "scale": _Array((2,), "numbers", tf.float32),
}
_REQUIRED = {"boxes", "classes"}
# One without the other would put the boxes elsewhere.
_TOGETHER = {"size", "scale"}
_HOLDS: Mapping[str, Callable[[tf.DType], bool]] = {
    "numbers": lambda dtype: dtype.is_floating or dtype.is_integer,
    "integers": lambda dtype: dtype.is_integer,
    "booleans": lambda dtype: dtype.is_bool,
}
EXPECTED = (
    "batches of (images, dict) with the keys boxes, classes and, if wanted, crowd, areas, and both of size and scale"
)


def check(shape: tuple[int, ...], targets: Any, name: str) -> None:
    """Raises TfqatError unless images of ``shape`` and what is declared of the function ``name`` make a detector's
    data.
    """
    try:
        Input((shape[0], shape[1]))
    except TfqatError as error:
        raise TfqatError(f"{name}: {error}") from error
    if not isinstance(targets, dict) or not all(isinstance(spec, tf.TensorSpec) for spec in targets.values()):
        raise TfqatError(f"{name}: expected {EXPECTED}; received, beside the images, {targets}.")
    alone = _TOGETHER & set(targets) if not set(targets) >= _TOGETHER else set()
    if set(targets) - set(_ARRAYS) or _REQUIRED - set(targets) or alone:
        raise TfqatError(f"{name}: expected {EXPECTED}; received the keys {sorted(map(str, targets))}.")
    for key in (key for key in _ARRAYS if key in targets):
        if not _fits(targets[key], _ARRAYS[key], targets["classes"].shape):
            raise TfqatError(
                f"{name}: expected {key} as {_ARRAYS[key]}, received {targets[key].dtype.name} of shape "
                f"{targets[key].shape}, beside classes {targets['classes'].shape}. A dataset of a generator needs an "
                "output_signature that says the shapes."
            )


def _fits(spec: tf.TensorSpec, array: _Array, classes: tf.TensorShape) -> bool:
    batch, rows = classes if classes.rank == 2 else (None, None)
    wanted = [batch, *(rows if size == ROWS else size for size in array.shape)]
    return _HOLDS[array.holds](spec.dtype) and spec.shape.rank is not None and spec.shape.is_compatible_with(wanted)


def checked(images: tf.Tensor, targets: Mapping[str, tf.Tensor], num_classes: int | None) -> tuple[tf.Tensor, Targets]:
    """The batch as :func:`tfqat.data.detection.pipeline.load` has those of validation, less ``index``.

    By default no box is a crowd's, and the model's input is the image itself: its size, at a scale of 1, and the areas
    of the boxes in it. What stands in the rows of padding is of no account. There is one row at least.

    A class out of range, a box that is not finite, of no area or outside the input, arrays that do not belong
    together: each stops the run with a message.
    """
    with tf.control_dependencies(_shapes_required(images, targets)):
        given = {key: tf.identity(value) for key, value in targets.items()}
    there = tf.cast(given["classes"], tf.int64) > PADDING
    made = _completed(given, tf.shape(images))
    requirements = [
        _classes_required(given["classes"], num_classes),
        *_boxes_required(made["boxes"], there, tf.shape(images)),
        *_sizes_required(given, there),
    ]
    with tf.control_dependencies(requirements):
        return tf.cast(images, tf.float32), {key: _padded(key, value, there) for key, value in made.items()}


def _completed(given: Mapping[str, tf.Tensor], image: tf.Tensor) -> Targets:
    """All arrays, each of its type."""
    made = {key: tf.cast(value, _ARRAYS[key].dtype) for key, value in given.items()}
    made.setdefault("crowd", tf.zeros_like(made["classes"], tf.bool))
    made.setdefault("size", tf.tile(tf.cast(image[None, 1:3], tf.float32), [image[0], 1]))
    made.setdefault("scale", tf.ones_like(made["size"]))
    top, left, bottom, right = tf.unstack(made["boxes"], axis=-1)
    made.setdefault("areas", (bottom - top) * (right - left) / tf.reduce_prod(made["scale"], axis=-1, keepdims=True))
    return made


def _shapes_required(images: tf.Tensor, targets: Mapping[str, tf.Tensor]) -> list[Any]:
    sizes: dict[str | int, tf.Tensor] = {ROWS: tf.shape(targets["classes"])[1]}
    requirements = []
    for key, value in targets.items():
        wanted = tf.stack([tf.shape(images)[0], *(sizes.get(size, size) for size in _ARRAYS[key].shape)])
        text = f"{key} of the shape {{}}, expected {{}}: {_ARRAYS[key]}, as many as there are images and classes."
        requirements.append(require(tf.reduce_all(tf.shape(value) == wanted), text, tf.shape(value), wanted))
    return requirements


def _classes_required(classes: tf.Tensor, num_classes: int | None) -> Any:
    top = tf.int32.max if num_classes is None else num_classes - 1
    # Before the cast, in which a class above int32 would become another one; one more, since there may be no row.
    numbers = tf.concat([tf.reshape(tf.cast(classes, tf.int64), [-1]), [PADDING]], 0)
    lowest, highest = tf.reduce_min(numbers), tf.reduce_max(numbers)
    text = (
        f"classes out of range: expected 0 to {top}, and {PADDING} in rows of padding, received {{}} to {{}}. Set "
        "model_config.num_classes, or correct the classes."
    )
    return require((lowest >= PADDING) & (highest <= top), text, lowest, highest)


def _boxes_required(boxes: tf.Tensor, there: tf.Tensor, image: tf.Tensor) -> list[Any]:
    """That each box can be learned; of the first that cannot, the message has the numbers."""
    begin, end = boxes[..., :2], boxes[..., 2:]
    limits = tf.cast(image[1:3], tf.float32) + OVERHANG
    wrong = {
        f"that are not finite, the first {{}}: {PIXELS}. Leave them out.": ~tf.math.is_finite(boxes),
        f"of no area, the first {{}}: {PIXELS}, ymin below ymax, xmin below xmax. Reorder the corners, or leave such "
        "boxes out.": begin >= end,
        f"that reach outside the image, the first {{}}: {PIXELS}. Scale them with the image, and clip them.": (
            (begin < -OVERHANG) | (end > limits)
        ),
        f"that lie within the first pixel, the first {{}}: {PIXELS}, not in shares of it. Multiply shares by height "
        "and width.": tf.reduce_all(end <= 1, axis=-1, keepdims=True),
    }
    requirements, left = [], there
    for text, sides in wrong.items():
        rows = tf.reduce_any(sides, axis=-1) & left
        left = left & ~rows  # what is wrong in two ways is told of once
        first = tf.reshape(tf.boolean_mask(boxes, rows)[:1], [-1])
        count = tf.math.count_nonzero(rows)
        requirements.append(require(count == 0, f"{{}} boxes {text}", count, first))
    return requirements


def _sizes_required(given: Mapping[str, tf.Tensor], there: tf.Tensor) -> list[Any]:
    """That what is given of areas, sizes and scales can be."""
    requirements = []
    for key in (key for key in ("areas", "size", "scale") if key in given):
        values = tf.cast(given[key], tf.float32)
        values = tf.boolean_mask(values, there) if key == "areas" else tf.reshape(values, [-1])
        wrong = tf.boolean_mask(values, ~(tf.math.is_finite(values) & (values > 0)))
        text = f"{{}} numbers under {key} that cannot be, such as {{}}: expected finite ones above 0. Correct them."
        requirements.append(require(tf.size(wrong) == 0, text, tf.size(wrong), wrong[:4]))
    return requirements


def _padded(key: str, value: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
    """With nothing in the rows of padding, and with such a row where there is none at all."""
    if ROWS not in _ARRAYS[key].shape:
        return value
    nothing = tf.cast(PADDING if key == "classes" else 0, value.dtype)
    mask = tf.reshape(there, tf.concat([tf.shape(there), [1] * (value.shape.rank - 2)], 0))
    spare = tf.maximum(1 - tf.shape(there)[1], 0)
    blank = tf.where(mask, value, nothing)
    return tf.pad(blank, [[0, 0], [0, spare], *[[0, 0]] * (value.shape.rank - 2)], constant_values=nothing)
