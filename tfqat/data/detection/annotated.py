"""Annotated: the images with boxes that a spec names: Pascal VOC, COCO or TFRecord."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfqat.data.detection import coco, pipeline, tfrecord, voc
from tfqat.data.detection.augment import Augment
from tfqat.data.detection.clean import Choices, Reading
from tfqat.data.detection.pipeline import TRAINING, VALIDATION, Input, fitted
from tfqat.data.image_files import Prepare, Prepared
from tfqat.data.pipeline import Data, HeldOut
from tfqat.errors import TfqatError


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """The splits of ``dataset``, a spec's section; what was found wrong in them is printed.

    Raises:
        TfqatError: data that cannot be used, another number of classes, or, with ``strict``, anything that is not as it
            should be.
    """
    train, validation = _read(dataset, TRAINING), _read(dataset, VALIDATION)
    _check_count(_some(train.class_map.names), num_classes)
    _check_boxes(train, TRAINING)
    _check_boxes(validation, VALIDATION)
    augment = Augment(**dataset.augment.model_dump())
    return pipeline.load(train, validation, _input(dataset), dataset.batch_size, seed, augment)


def held_out(dataset: Any, num_classes: int | None = None) -> HeldOut:
    """The validation split of ``dataset``; no training image is looked at.

    Raises:
        TfqatError: as of :func:`load`, or a split of other classes than the training split.
    """
    names = class_names(dataset)
    _check_count(names, num_classes)
    reading = _read(dataset, VALIDATION)
    pipeline.check_same_classes(names, reading.class_map.names)
    _check_boxes(reading, VALIDATION)
    return pipeline.held_out(reading, _input(dataset), dataset.batch_size)


def _read(dataset: Any, split: str) -> Reading:
    """The split; what was found wrong in it is printed."""
    choices = Choices(dataset.crowd, dataset.degenerate, dataset.outside, dataset.strict)
    reading = _READERS[dataset.kind](dataset, split, choices)
    if reading.report.findings:
        print(reading.report)
    return reading


def _check_count(names: tuple[str, ...], num_classes: int | None) -> None:
    if num_classes not in (None, len(names)):
        raise TfqatError(
            f"dataset_config: the annotations have {len(names)} classes ({', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}), but the model has {num_classes}. Set model_config.num_classes to "
            f"{len(names)}, or name those wanted in dataset_config.classes."
        )


def _check_boxes(reading: Reading, split: str) -> None:
    """Raises TfqatError for a split that has images and in them no object: nothing could be learned, or measured."""
    if reading.examples and all(one.crowd.all() for one in reading.examples):
        raise TfqatError(
            f"dataset_config: the {split} split has {len(reading.examples)} images and no box of an object; expected "
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
    model = _input(dataset)

    def prepare(image: tf.Tensor) -> Prepared:
        made, _, whole = fitted(tf.cast(image, tf.float32), tf.zeros((0, 4)), model)
        scale = whole["scale"].numpy()
        return Prepared(made, tuple(image.shape[:2]), (float(scale[0]), float(scale[1])))

    return prepare


def _input(dataset: Any) -> Input:
    return Input(_size(dataset), dataset.preprocessing)


def _size(dataset: Any) -> tuple[int, int]:
    height, width = dataset.image_size
    return int(height), int(width)


def _voc(dataset: Any, split: str, choices: Choices) -> Reading:
    names = {TRAINING: dataset.train_split, VALIDATION: dataset.val_split}
    return voc.read(dataset.path, names[split], dataset.classes, choices)


def _coco(dataset: Any, split: str, choices: Choices) -> Reading:
    places = {
        TRAINING: (dataset.train_annotations, dataset.train_images),
        VALIDATION: (dataset.val_annotations, dataset.val_images),
    }
    return coco.read(*places[split], dataset.classes, choices)


def _tfrecord(dataset: Any, split: str, choices: Choices) -> Reading:
    files = {TRAINING: dataset.train_files, VALIDATION: dataset.val_files}
    return tfrecord.read(files[split], None, choices)


_READERS: Mapping[str, Callable[[Any, str, Choices], Reading]] = {
    "voc": _voc,
    "coco": _coco,
    "tfrecord": _tfrecord,
}
_NAMES: Mapping[str, Callable[[Any], tuple[str, ...]]] = {
    "voc": lambda dataset: tuple(voc.all_classes(Path(dataset.path))),
    "coco": lambda dataset: coco.class_names(dataset.train_annotations),
    "tfrecord": lambda dataset: tfrecord.beside(Path(dataset.train_files)).names,
}
