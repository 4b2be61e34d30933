"""Example: one image and the boxes in it, wherever they were read from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfqat.core.files import write_text
from tfqat.errors import TfqatError

CLASS_MAP = "classes.json"


@dataclass(frozen=True)
class ImageBytes:
    """Where an encoded image lies: a file, or ``length`` bytes of one from ``offset`` on (inside a TFRecord)."""

    path: Path
    offset: int = 0
    length: int | None = None  # None: to the end

    def read(self) -> bytes:
        """The encoded image."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.length is None else self.length)


@dataclass(frozen=True)
class ClassMap:
    """The classes in the order of the model's outputs, and the number that annotations give each.

    Attributes:
        names: class k is ``names[k]``.
        ids: its number in COCO json and TFRecord. COCO's skip some; Pascal VOC, which has none, counts from 1.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for what, values in (("name", self.names), ("number", self.ids)):
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise TfqatError(f"A class map needs each {what} once, received more than once: {', '.join(twice)}.")
        if len(self.names) != len(self.ids):
            raise TfqatError(f"A class map has {len(self.names)} names, but {len(self.ids)} numbers.")

    @classmethod
    def numbered(cls, names: Iterable[str]) -> ClassMap:
        """The classes ``names``, counted from 1: 0 is the background in TensorFlow's label maps."""
        names = tuple(names)
        return cls(names, tuple(range(1, len(names) + 1)))


def write_class_map(path: str | os.PathLike[str], class_map: ClassMap) -> None:
    """A JSON object: number -> name."""
    table = {str(number): name for number, name in zip(class_map.ids, class_map.names, strict=True)}
    write_text(path, json.dumps(table, indent=2, ensure_ascii=False) + "\n")


def read_class_map(path: str | os.PathLike[str]) -> ClassMap:
    """What :func:`write_class_map` wrote.

    Raises:
        TfqatError: the file is not such an object.
        OSError: it cannot be opened.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=list)
        if not all(isinstance(name, str) for _, name in table):
            raise ValueError("a name that is no text")
        return ClassMap(tuple(name for _, name in table), tuple(int(number) for number, _ in table))
    except (ValueError, TypeError, RecursionError) as error:
        raise TfqatError(f'{path}: expected a class map such as {{"1": "cat", "2": "dog"}}; {error}.') from error


@dataclass(frozen=True, eq=False)
class Example:
    """One image and its objects, in the order of the annotation.

    Attributes:
        image: the encoded image.
        name: its file name, relative to the image folder, as the annotation has it.
        source_id: the data set's own key of the image.
        height, width: in pixels.
        boxes: ``(n, 4)`` float32, pixels: ymin, xmin, ymax, xmax, edges and not pixel centres, so that a box over the
            whole image is ``(0, 0, height, width)``. Pascal VOC's numbers are taken as they stand, as TensorFlow's
            and most other readers do, though its own tools count pixels from 1.
        classes: ``(n,)`` int32, index into the ClassMap.
        crowd: ``(n,)`` bool: the box holds many objects (COCO's ``iscrowd``); evaluation neither rewards nor punishes
            what is found in it.
        areas: ``(n,)`` float32, square pixels: COCO's area of the segmentation, by which evaluation calls an object
            small or large; where there is none, that of the box.
    """

    image: ImageBytes
    name: str
    source_id: str
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Object:
    """One annotated object; the fields are a row of an Example's arrays."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None


def example(image: ImageBytes, name: str, source_id: str, size: tuple[int, int], objects: Iterable[Object]) -> Example:
    """The Example of ``objects`` in an image of ``size`` (height, width)."""
    rows = list(objects)
    boxes = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by `clean`
        own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        areas = [area if row.area is None else row.area for row, area in zip(rows, own, strict=True)]
        return Example(
            image=image,
            name=name,
            source_id=source_id,
            height=size[0],
            width=size[1],
            boxes=boxes.astype(np.float32),
            classes=np.array([row.label for row in rows], np.int32),
            crowd=np.array([row.crowd for row in rows], bool),
            areas=np.array(areas, np.float32),
        )
