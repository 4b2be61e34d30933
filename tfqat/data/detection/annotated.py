"""Annotated: the images with boxes that a spec names: Pascal VOC, COCO or TFRecord."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfqat.data.detection import coco, tfrecord, voc
from tfqat.data.detection.augment import Augment
from tfqat.data.detection.clean import Choices, Reading
from tfqat.data.detection.pipeline import Input, fitted
from tfqat.data.detection.pipeline import load as streams
from tfqat.data.image_files import Prepare, Prepared
from tfqat.data.pipeline import Data
from tfqat.errors import TfqatError


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """The splits of ``dataset``, a spec's section; what was found wrong in them is printed.

    Raises:
        TfqatError: data that cannot be used, another number of classes, or, with ``strict``, anything that is not as it
            should be.
    """
    choices = Choices(dataset.crowd, dataset.degenerate, dataset.outside, dataset.strict)
    train, validation = _READERS[dataset.kind](dataset, choices)
    for reading in (train, validation):
        if reading.report.findings:
            print(reading.report)
    names = _some(train.class_map.names)
    if num_classes not in (None, len(names)):
        raise TfqatError(
            f"dataset_config: the annotations have {len(names)} classes ({', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}), but the model has {num_classes}. Set model_config.num_classes to "
            f"{len(names)}, or name those wanted in dataset_config.classes."
        )
    _check_boxes(train, validation)
    augment = Augment(**dataset.augment.model_dump())
    model = Input(_size(dataset), dataset.preprocessing)
    return streams(train, validation, model, dataset.batch_size, seed, augment)


def _check_boxes(train: Reading, validation: Reading) -> None:
    """Raises TfqatError for a split that has images and in them no object: nothing could be learned, or measured."""
    for key, reading in (("training", train), ("validation", validation)):
        if reading.examples and all(one.crowd.all() for one in reading.examples):
            raise TfqatError(
                f"dataset_config: the {key} split has {len(reading.examples)} images and no box of an object; expected "
                f"some. Name another split, or mend its annotations.\n{reading.report}"
            )


def input_shape(dataset: Any) -> tuple[int, int, int]:
    """One RGB image."""
    return (*_size(dataset), 3)


def class_names(dataset: Any) -> tuple[str, ...]:
    """The classes, without a look at the images."""
    if dataset.kind != "tfrecord" and dataset.classes:
        return tuple(dataset.classes)
    return _some(_NAMES[dataset.kind](dataset))


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise TfqatError(
            "dataset_config: the annotations have no object, so there is no class; check the path, or name the classes "
            "in dataset_config.classes."
        )
    return names


def preparer(dataset: Any) -> Prepare:
    """What becomes of any image, as in validation."""
    model = Input(_size(dataset), dataset.preprocessing)

    def prepare(image: tf.Tensor) -> Prepared:
        made, _, whole = fitted(tf.cast(image, tf.float32), tf.zeros((0, 4)), model)
        scale = whole["scale"].numpy()
        return Prepared(made, tuple(image.shape[:2]), (float(scale[0]), float(scale[1])))

    return prepare


def _size(dataset: Any) -> tuple[int, int]:
    height, width = dataset.image_size
    return int(height), int(width)


def _voc(dataset: Any, choices: Choices) -> tuple[Reading, Reading]:
    train, validation = (
        voc.read(dataset.path, split, dataset.classes, choices) for split in (dataset.train_split, dataset.val_split)
    )
    return train, validation


def _coco(dataset: Any, choices: Choices) -> tuple[Reading, Reading]:
    train = coco.read(dataset.train_annotations, dataset.train_images, dataset.classes, choices)
    return train, coco.read(dataset.val_annotations, dataset.val_images, dataset.classes, choices)


def _tfrecord(dataset: Any, choices: Choices) -> tuple[Reading, Reading]:
    train, validation = (tfrecord.read(files, None, choices) for files in (dataset.train_files, dataset.val_files))
    return train, validation


_READERS: Mapping[str, Callable[[Any, Choices], tuple[Reading, Reading]]] = {
    "voc": _voc,
    "coco": _coco,
    "tfrecord": _tfrecord,
}
_NAMES: Mapping[str, Callable[[Any], tuple[str, ...]]] = {
    "voc": lambda dataset: tuple(voc.all_classes(Path(dataset.path))),
    "coco": lambda dataset: coco.class_names(dataset.train_annotations),
    "tfrecord": lambda dataset: tfrecord.beside(Path(dataset.train_files)).names,
}
