"""TFRecord: files of tf.train.Example, with the field names of TensorFlow's object detection API.

Boxes in a record are divided by the image's size and float32. They are read to a thousandth of a pixel, which is what
such a number holds in the largest image (8,192 pixels), so that whole pixels and COCO's two decimals come back exact.
Source: tensorflow/models, research/object_detection/data_decoders/tf_example_decoder.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tfqat.data.detection.clean import USUAL, Choices, Reading, Track, cleaned
from tfqat.data.detection.example import CLASS_MAP, ClassMap, Example, ImageBytes, Object, example, read_class_map
from tfqat.data.detection.report import DROPPED, LEFT_OUT, Finding
from tfqat.data.encoded_image import decode, reason
from tfqat.errors import TfqatError

# A record in its file: its length (8 bytes) and the checksum of that (4), the data, the checksum of the data (4).
HEAD, TAIL = 12, 4
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")
DECIMALS = 3
CORNERS = ("ymin", "xmin", "ymax", "xmax")


def read(
    files: str | os.PathLike[str],
    classes: ClassMap | None = None,
    choices: Choices = USUAL,
    track: Track = lambda items, _: items,
) -> Reading:
    """The images of all files that the pattern ``files`` names, in sorted order.

    The images stay in the files; only where each one lies is kept.

    Args:
        files: a file, or a pattern with * and ?.
        classes: None reads the class map that ``tfqat dataset-convert`` wrote beside the files.

    Raises:
        TfqatError: no file, no class map, or, where ``choices.strict``, anything that is not as it should be.
    """
    pattern = Path(files)
    found = _found(pattern)
    class_map = beside(pattern) if classes is None else classes
    findings = [
        Finding("missing_shard", str(pattern), f"no file {name}", LEFT_OUT) for name in _missing(pattern, found)
    ]
    examples: list[Example] = []
    for file in found:
        examples += _of_file(file, class_map, findings)
    return cleaned(str(pattern), examples, class_map, findings, choices, track)


def _found(pattern: Path) -> list[Path]:
    files = sorted(file for file in pattern.parent.glob(pattern.name) if file.is_file() and file.name != CLASS_MAP)
    if not files:
        within = f" Its files are {str(pattern / '*.tfrecord')!r}." if pattern.is_dir() else ""
        raise TfqatError(
            f"TFRecord: no file matches {str(pattern)!r}; * and ? stand for parts of a file's name, not of its "
            f"folder's.{within}"
        )
    return files


def _missing(pattern: Path, found: Sequence[Path]) -> list[str]:
    """Files that are not there, though the pattern covers them and the others' names count them."""
    there = {file.name for file in found}
    sets = {(name[1], name[3], name[4]) for name in map(SHARD.fullmatch, there) if name}
    counted = {f"{start}-{index:05d}-of-{count}{end}" for start, count, end in sets for index in range(int(count))}
    return sorted(name for name in counted - there if fnmatchcase(name, pattern.name))


def record(encoded: bytes, image_format: str, item: Example, class_map: ClassMap) -> bytes:
    """``item`` as a serialized tf.train.Example with the image ``encoded``."""
    boxes = item.boxes.astype(np.float64) / np.array([item.height, item.width] * 2)
    features = {
        "image/encoded": _texts([encoded]),
        "image/format": _texts([image_format]),
        "image/filename": _texts([item.name]),
        "image/source_id": _texts([item.source_id]),
        "image/height": _integers([item.height]),
        "image/width": _integers([item.width]),
        **{f"image/object/bbox/{corner}": _numbers(boxes[:, axis]) for axis, corner in enumerate(CORNERS)},
        "image/object/class/label": _integers(class_map.ids[label] for label in item.classes),
        "image/object/class/text": _texts(class_map.names[label] for label in item.classes),
        "image/object/is_crowd": _integers(int(flag) for flag in item.crowd),
        "image/object/area": _numbers(item.areas),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _texts(values: Iterable[str | bytes]) -> tf.train.Feature:
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


def _integers(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _numbers(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def beside(pattern: Path) -> ClassMap:
    """The class map beside the files of ``pattern``.

    Raises:
        TfqatError: there is none, or it cannot be read.
    """
    path = pattern.parent / CLASS_MAP
    if not path.is_file():
        raise TfqatError(f'{pattern}: no class map at {path}. Write one there, such as {{"1": "cat", "2": "dog"}}.')
    return read_class_map(path)


def _of_file(file: Path, class_map: ClassMap, findings: list[Finding]) -> Iterator[Example]:
    """The examples of one file up to its first damage: where the next record begins is not known after it."""
    offset, number = 0, 0
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    while True:
        try:
            data = next(records)
        except StopIteration:
            if offset != file.stat().st_size:  # TensorFlow passes over less than a head at the end
                findings.append(_damage(file, f"ends within a record's head at byte {offset}", number))
            elif not number:
                findings.append(_damage(file, "is empty", number))
            return
        except tf.errors.OpError as error:
            findings.append(_damage(file, reason(error), number))
            return
        number += 1
        try:
            yield _example(data, file, offset, f"{file.name}, record {number}", class_map, findings)
        except (ValueError, TypeError) as error:
            findings.append(Finding("broken_record", f"{file.name}, record {number}", str(error), LEFT_OUT))
        offset += HEAD + len(data) + TAIL


def _damage(file: Path, what: str, number: int) -> Finding:
    return Finding("truncated", str(file), f"{what}; {number} records before it are read", LEFT_OUT)


def _example(data: bytes, file: Path, offset: int, where: str, class_map: ClassMap, findings: list[Finding]) -> Example:
    features = _features(data)
    encoded = features.get("image/encoded", [])
    if len(encoded) != 1 or not isinstance(encoded[0], bytes) or not encoded[0]:
        raise ValueError("has no image/encoded")
    image = ImageBytes(file, offset + HEAD + data.index(encoded[0]), len(encoded[0]))
    name, source_id = (_word(features, f"image/{key}") for key in ("filename", "source_id"))
    height, width = (int((features.get(f"image/{side}") or [0])[0]) for side in ("height", "width"))
    if not height or not width:
        height, width = _size(encoded[0])
    objects = _objects(features, (height, width), name or where, class_map, findings)
    return example(image, name or where, source_id, (height, width), objects)


def _size(encoded: bytes) -> tuple[int, int]:
    try:
        height, width, _ = decode(tf.constant(encoded)).shape
    except tf.errors.OpError:  # told when all images are decoded
        return 0, 0
    return height, width


def _features(data: bytes) -> dict[str, list[Any]]:
    """Field -> its values, whatever their type."""
    try:
        parsed = tf.train.Example.FromString(data)
    except DecodeError as error:
        raise ValueError(f"is no tf.train.Example ({error})") from error
    return {
        name: list(getattr(feature, feature.WhichOneof("kind") or "int64_list").value)
        for name, feature in parsed.features.feature.items()
    }


def _word(features: dict[str, list[Any]], name: str) -> str:
    value = (features.get(name) or [""])[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _corners(features: dict[str, list[Any]]) -> np.ndarray:
    """``(n, 4)``, as fractions of the image."""
    columns = [features.get(f"image/object/bbox/{corner}", []) for corner in CORNERS]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"has {', '.join(str(len(column)) for column in columns)} of {', '.join(CORNERS)}")
    return np.array(columns, np.float64).T


def _objects(
    features: dict[str, list[Any]], size: tuple[int, int], where: str, class_map: ClassMap, findings: list[Finding]
) -> list[Object]:
    corners = np.round(_corners(features) * np.array([*size, *size]), DECIMALS)
    labels = _labels(features, class_map, len(corners))
    crowd = _column(features, "image/object/is_crowd", len(corners), 0)
    areas = _column(features, "image/object/area", len(corners), None)
    objects = []
    for row, (label, said) in enumerate(labels):
        if label is None:
            findings.append(Finding("unknown_class", where, f"object {row + 1}, {said}", DROPPED))
            continue
        top, left, bottom, right = (float(value) for value in corners[row])
        objects.append(Object((top, left, bottom, right), label, bool(crowd[row]), areas[row]))
    return objects


def _labels(features: dict[str, list[Any]], class_map: ClassMap, count: int) -> Sequence[tuple[int | None, str]]:
    """For each object its class, None where the map has none, and what the record says. Where a record holds both a
    number and a name, they must be of one class."""
    by_number = {number: label for label, number in enumerate(class_map.ids)}
    by_name = {name: label for label, name in enumerate(class_map.names)}
    numbers = _column(features, "image/object/class/label", count, None)
    texts = _column(features, "image/object/class/text", count, None)
    found: list[tuple[int | None, str]] = []
    for number, text in zip(numbers, texts, strict=True):
        name = text.decode(errors="replace") if isinstance(text, bytes) else text
        given = [by_number.get(number)] * (number is not None) + [by_name.get(name)] * (name is not None)
        said = " and ".join(repr(value) for value in (number, name) if value is not None) or "neither number nor name"
        found.append((given[0] if len(set(given)) == 1 else None, said))
    return found


def _column(features: dict[str, list[Any]], name: str, count: int, default: Any) -> list[Any]:
    """A field with a value for each object; ``default`` where the record has no such field."""
    values = features.get(name) or [default] * count
    if len(values) != count:
        raise ValueError(f"has {len(values)} values of {name} for {count} boxes")
    return values
