"""Data: the labeled images that a spec names, as seeded tf.data pipelines; one file a kind."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfqat.data.pipeline import Data

# A new kind is one file here and one row; the file has the functions `load` and `input_shape`.
KINDS = {
    "digits": "tfqat.data.digits",
    "image_folder": "tfqat.data.image_folder",
    "npz": "tfqat.data.npz",
    "python": "tfqat.data.python",
    **dict.fromkeys(("voc", "coco", "tfrecord"), "tfqat.data.detection.annotated"),
}


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """The Data that ``dataset`` (a spec's dataset section) describes.

    Args:
        dataset: has ``kind`` and the keys of that kind.
        seed: seeds shuffling and augmentation; epoch k is a function of ``(seed, k)`` alone.
        num_classes: where given, each label must be from 0 to ``num_classes - 1``.

    Raises:
        TfqatError: the data is missing, broken or does not fit; the message says what, where and how to mend it.
    """
    return import_module(KINDS[dataset.kind]).load(dataset, seed, num_classes)


def input_shape(dataset: Any) -> tuple[int, int, int]:
    """The shape ``(height, width, channels)`` of one image of ``dataset``, without loading more than it takes."""
    return import_module(KINDS[dataset.kind]).input_shape(dataset)
