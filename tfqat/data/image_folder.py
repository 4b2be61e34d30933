"""Image folder: a folder per class under train_dir and val_dir."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqat.data.encoded_image import READABLE, UNREADABLE, decode
from tfqat.data.image_files import NAMED_IN_ERRORS, Prepare, Prepared, faults_of, undecodable
from tfqat.data.pipeline import Data, HeldOut, Split, in_their_order, seeded
from tfqat.errors import TfqatError

MEND = "Repair or remove them, or set dataset_config.skip_corrupt: true to train without them."
# With `crop`, images are resized to 8/7 of the size first: the 256 to 224 of the ImageNet papers.
CROP_MARGIN = 8 / 7
IMAGENET_BGR_MEAN = (103.939, 116.779, 123.68)
IMAGENET_RGB_MEAN = (0.485, 0.456, 0.406)
IMAGENET_RGB_STD = (0.229, 0.224, 0.225)

# RGB floats 0 to 255 -> model input; the conventions of keras.applications.imagenet_utils.preprocess_input.
PREPROCESSING: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "caffe": lambda image: image[..., ::-1] - tf.constant(IMAGENET_BGR_MEAN),
    "torch": lambda image: (image / 255.0 - tf.constant(IMAGENET_RGB_MEAN)) / tf.constant(IMAGENET_RGB_STD),
    "tf": lambda image: image / 127.5 - 1.0,
    "none": lambda image: image,
}


@dataclass(frozen=True)
class Listing:
    """The image files of one split and the index of each one's class."""

    files: tuple[str, ...]
    labels: tuple[int, ...]


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """Classes are the folder names in sorted order; images become RGB floats ``(height, width, 3)``.

    Without ``augment.crop`` an image is resized to ``image_size`` (bilinear, antialiased). With it, to 8/7 of that
    size, then cut: at a random place for training, in the middle for validation and calibration. ``augment.flip``
    mirrors every second training image, at random. All images are decoded once up front, so that a corrupt one is
    found before training and not hours into it.
    """
    names = _checked_names(dataset, num_classes)
    train, validation = _decodable(dataset, names, (dataset.train_dir, dataset.val_dir))
    return seeded(
        _split(train, dataset, augmented=True),
        _split(validation, dataset, augmented=False),
        input_shape(dataset),
        dataset.batch_size,
        seed,
        names,
    )


def held_out(dataset: Any, num_classes: int | None = None) -> HeldOut:
    """The validation images of :func:`load`; of the training images only the folders' names are read."""
    names, shape = _checked_names(dataset, num_classes), input_shape(dataset)
    (validation,) = _decodable(dataset, names, (dataset.val_dir,))
    return HeldOut(
        validation=in_their_order(_split(validation, dataset, augmented=False), shape, dataset.batch_size),
        num_classes=len(names),
        input_shape=shape,
        class_names=names,
    )


def input_shape(dataset: Any) -> tuple[int, int, int]:
    """One RGB image."""
    size = dataset.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return (int(height), int(width), 3)


def class_names(dataset: Any) -> tuple[str, ...]:
    """The folders' names, without a look at the images."""
    return _class_names(Path(dataset.train_dir), "train_dir")


def preparer(dataset: Any) -> Prepare:
    """What becomes of any image, as in validation."""
    middle = _middle(dataset)

    def prepare(image: tf.Tensor) -> Prepared:
        height, width = image.shape[:2]
        made = middle(image)
        return Prepared(made, (height, width), (made.shape[0] / height, made.shape[1] / width))

    return prepare


def _checked_names(dataset: Any, num_classes: int | None) -> tuple[str, ...]:
    names = class_names(dataset)
    _check_same_classes(names, _class_names(Path(dataset.val_dir), "val_dir"), dataset)
    _check_count(names, num_classes, dataset)
    return names


def _class_names(folder: Path, key: str) -> tuple[str, ...]:
    if not folder.is_dir():
        raise TfqatError(f"dataset_config.{key}: no folder at {str(folder)!r}; expected one with a folder per class.")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise TfqatError(f"dataset_config.{key}: {str(folder)!r} has no class folders; expected one folder per class.")
    return tuple(names)


def _check_same_classes(train: tuple[str, ...], validation: tuple[str, ...], dataset: Any) -> None:
    if train != validation:
        only = {
            dataset.train_dir: sorted(set(train) - set(validation)),
            dataset.val_dir: sorted(set(validation) - set(train)),
        }
        said = "; ".join(f"only in {folder}: {', '.join(names)}" for folder, names in only.items() if names)
        raise TfqatError(f"train_dir and val_dir must have the same class folders. {said}. Add or remove folders.")


def _check_count(names: tuple[str, ...], num_classes: int | None, dataset: Any) -> None:
    # Too few is a mistake too: a folder's number would be that of another class of the model.
    if num_classes not in (None, len(names)):
        raise TfqatError(
            f"{dataset.train_dir} has {len(names)} class folders ({', '.join(names[:NAMED_IN_ERRORS])}"
            f"{', ...' if len(names) > NAMED_IN_ERRORS else ''}), but the model has {num_classes} classes. Set "
            f"model_config.num_classes to {len(names)}, or add or remove folders (in train_dir and val_dir)."
        )


def _listing(folder: Path, names: tuple[str, ...]) -> Listing:
    """All images, in sorted order, so that an index means the same image on every machine."""
    files, labels = [], []
    for label, name in enumerate(names):
        found = sorted(
            os.path.join(root, file)
            for root, _, inside in os.walk(folder / name)
            for file in inside
            if Path(file).suffix.lower() in READABLE | UNREADABLE and not file.startswith(".")
        )
        if not found:
            raise TfqatError(
                f"Class folder {str(folder / name)!r} has no images ({', '.join(sorted(READABLE))}). Add images or "
                "remove the folder (from train_dir and val_dir)."
            )
        files += found
        labels += [label] * len(found)
    return Listing(tuple(files), tuple(labels))


def _decodable(dataset: Any, names: tuple[str, ...], folders: Sequence[str]) -> list[Listing]:
    """The images of each folder; TfqatError for those that cannot be decoded, unless they are to be left out."""
    listings = [_listing(Path(folder), names) for folder in folders]
    bad = faults_of([file for listing in listings for file in listing.files])
    if bad and not dataset.skip_corrupt:
        raise TfqatError(undecodable(bad, MEND))
    if bad:
        print(f"skip_corrupt: left out {len(bad)} images that cannot be decoded, the first: {next(iter(bad))}")
    return [_without(listing, bad, names) for listing in listings]


def _without(listing: Listing, bad: dict[str, str], names: tuple[str, ...]) -> Listing:
    kept = [(file, label) for file, label in zip(listing.files, listing.labels, strict=True) if file not in bad]
    emptied = sorted(set(listing.labels) - {label for _, label in kept})
    if emptied:
        folders = ", ".join(names[label] for label in emptied)
        raise TfqatError(f"No decodable image is left in class {folders} after leaving out the corrupt ones.")
    return Listing(*map(tuple, zip(*kept, strict=True)))


def _larger(dataset: Any) -> tuple[int, int]:
    """The size that is cut from."""
    height, width, _ = input_shape(dataset)
    return (round(height * CROP_MARGIN), round(width * CROP_MARGIN)) if dataset.augment.crop else (height, width)


def _middle(dataset: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """RGB uint8 -> its middle, as the model takes it."""
    height, width, _ = input_shape(dataset)
    prepare, larger = PREPROCESSING[dataset.preprocessing], _larger(dataset)

    def middle(image: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(tf.cast(image, tf.float32), larger, antialias=True)
        return prepare(tf.image.resize_with_crop_or_pad(resized, height, width))

    return middle


def _split(listing: Listing, dataset: Any, augmented: bool) -> Split:
    height, width, _ = input_shape(dataset)
    prepare, larger, of_image = PREPROCESSING[dataset.preprocessing], _larger(dataset), _middle(dataset)
    flip, crop = dataset.augment.flip, dataset.augment.crop

    def middle(file: tf.Tensor) -> tf.Tensor:
        return of_image(_read(file))

    def decode_larger(file: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(tf.cast(_read(file), tf.float32), larger, antialias=True)

    def augment(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        if crop:
            image = tf.image.stateless_random_crop(image, (height, width, 3), draw)
        if flip:
            image = tf.image.stateless_random_flip_left_right(image, draw + tf.constant([1, 0], tf.int64))
        return prepare(image)

    files, labels = np.array(listing.files, dtype=object), np.array(listing.labels, np.int32)
    if augmented and (flip or crop):
        return Split(files, labels, middle, lambda file, draw: augment(decode_larger(file), draw))
    return Split(files, labels, middle)


def _read(file: tf.Tensor) -> tf.Tensor:
    return decode(tf.io.read_file(file))
