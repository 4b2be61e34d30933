"""Datasets: the kinds of data that a spec may name, each with keys of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tfqat.spec.types import ClassNames, Factor, Function, Positive, Section, Size, Text, wrong

# Pixels of a cell of a detector's coarsest level.
CELL = 128


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise wrong("two numbers, the smaller one first")
    return pair


def _halves_to_level_7(size: tuple[int, int]) -> tuple[int, int]:
    if any(side % CELL for side in size):
        near = [max(round(side / CELL), 1) * CELL for side in size]
        raise wrong(f"multiples of {CELL}, so that the image has whole cells at level 7, such as {near}")
    return size


class Augment(Section):
    """Random changes of training images."""

    flip: bool = False  # left to right, half of the time
    crop: bool = False  # a random part, resized to image_size


class Digits(Section):
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8, ten classes, no download."""

    kind: Literal["digits"]
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    batch_size: Positive = 64


class ImageFolder(Section):
    """One folder a class, below a folder for training and one for validation."""

    kind: Literal["image_folder"]
    train_dir: Text
    val_dir: Text
    image_size: Size = (224, 224)  # a side, or [height, width]
    batch_size: Positive = 32
    preprocessing: Literal["caffe", "torch", "tf", "none"] = "tf"
    augment: Augment = Augment()
    skip_corrupt: bool = False


class Npz(Section):
    """Arrays of one .npz file. Without test arrays (``x_test: null``), ``validation_fraction`` is held out."""

    kind: Literal["npz"]
    path: Text
    x_train: Text = "x_train"
    y_train: Text = "y_train"
    x_test: Text | None = "x_test"
    y_test: Text | None = "y_test"
    image_size: Size | None = None  # resize to this; null keeps the size in the file
    scale: Annotated[float, Field(gt=0)] | None = None  # null: integers are divided by their type's maximum
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch_size: Positive = 64


class Python(Section):
    """A function of the user's own that returns batched tf.data datasets."""

    kind: Literal["python"]
    function: Function
    targets: Literal["labels", "boxes"] = "labels"  # boxes: of objects, as docs/detection.md has them


class BoxAugment(Section):
    """Random changes of training images and their boxes."""

    flip: bool = False  # left to right, half of the time
    scale: Annotated[tuple[Factor, Factor], Field(strict=False), AfterValidator(_rising)] | None = None  # [from, to]
    min_visible: Annotated[float, Field(ge=0, le=1)] = 0.0  # a box of which cutting leaves less goes
    color: Annotated[float, Field(ge=0, lt=1)] = 0.0  # brightness, contrast and saturation, up to that far from 1


class Boxes(Section):
    """What the kinds with boxes have in common."""

    image_size: Annotated[Size, AfterValidator(_halves_to_level_7)] = (512, 512)  # a side, or [height, width]
    batch_size: Positive = 8
    preprocessing: Literal["caffe", "torch", "tf", "none"] = "none"  # EfficientNets scale pixels themselves
    augment: BoxAugment = BoxAugment()
    crowd: Literal["keep", "drop"] = "keep"  # boxes around many objects: no object to learn, none to miss
    degenerate: Literal["drop", "keep"] = "drop"  # boxes of no area
    outside: Literal["clip", "drop"] = "clip"  # boxes that reach outside their image
    strict: bool = False  # refuse what would be left out, dropped or clipped


class Voc(Boxes):
    """A folder in Pascal VOC's layout: Annotations, ImageSets/Main, JPEGImages."""

    kind: Literal["voc"]
    path: Text
    train_split: Text = "train"
    val_split: Text = "val"
    classes: ClassNames | None = None  # in the order of the model's outputs; null: all that are annotated, sorted


class Coco(Boxes):
    """COCO json files and their images."""

    kind: Literal["coco"]
    train_annotations: Text
    train_images: Text
    val_annotations: Text
    val_images: Text
    classes: ClassNames | None = None  # in the order of the model's outputs; null: all categories, by their number


class TFRecord(Boxes):
    """TFRecord files as `tfqat dataset-convert` writes them, with their class map beside them."""

    kind: Literal["tfrecord"]
    train_files: Text  # a file, or a pattern with * and ?
    val_files: Text


Dataset = Annotated[
    Digits | ImageFolder | Npz | Python | Voc | Coco | TFRecord,
    Field(discriminator="kind"),
]
