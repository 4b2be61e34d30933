"""Data: the labeled images that a spec names, as seeded tf.data pipelines; one file a kind."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfqat.errors import TfqatError

if TYPE_CHECKING:
    from tfqat.data.pipeline import Data, HeldOut

# A new kind is one file here and one row; the file has the functions `load` and `input_shape`, and `held_out` where
# the validation images can be had without the training images.
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


def held_out(dataset: Any, seed: int, num_classes: int | None = None) -> HeldOut:
    """What a model is measured on; training images that are kept apart are not looked at, of which there may be many.

    Arguments and errors as of :func:`load`.
    """
    module = import_module(KINDS[dataset.kind])
    if hasattr(module, "held_out"):
        return module.held_out(dataset, num_classes)
    return module.load(dataset, seed, num_classes)


def class_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes in the order of the model's outputs, without loading an image.

    Raises:
        TfqatError: as ``preparer``.
    """
    return _of_files(dataset).class_names(dataset)


def preparer(dataset: Any) -> Any:
    """What makes the model's input of an image file's pixels; see :mod:`tfqat.data.image_files`.

    Raises:
        TfqatError: a kind whose data are no image files, so that nothing says how one becomes an input.
    """
    return _of_files(dataset).preparer(dataset)


def _of_files(dataset: Any) -> Any:
    module = import_module(KINDS[dataset.kind])
    if not hasattr(module, "preparer"):
        able = ", ".join(kind for kind, name in KINDS.items() if hasattr(import_module(name), "preparer"))
        raise TfqatError(
            f"dataset_config.kind {dataset.kind}: nothing says how an image file becomes an input of this model; "
            f"expected one of {able}."
        )
    return module


def input_shape(dataset: Any) -> tuple[int, int, int]:
    """The shape ``(height, width, channels)`` of one image of ``dataset``, without loading more than it takes."""
    return import_module(KINDS[dataset.kind]).input_shape(dataset)
