"""Dataset convert: an annotated data set as TFRecord files with a class map beside them; all files or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfqat.core.files import folder_on_success
from tfqat.core.listing import some
from tfqat.data.detection import coco, tfrecord, voc
from tfqat.data.detection.clean import USUAL, Choices, Reading, Track
from tfqat.data.detection.example import CLASS_MAP, Example, read_class_map, write_class_map
from tfqat.errors import TfqatError

IMAGES_A_SHARD = 1000
# How an encoded image begins -> what its format is called in a record; those that can be decoded.
FORMATS = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp"}


def convert_voc(
    folder: str | os.PathLike[str],
    split: str,
    output: str | os.PathLike[str],
    shards: int | None = None,
    classes: Sequence[str] | None = None,
    choices: Choices = USUAL,
) -> list[Path]:
    """Writes a split of a Pascal VOC folder; see :func:`write`."""
    return _converted(lambda track: voc.read(folder, split, classes, choices, track), output, split, shards)


def convert_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    output: str | os.PathLike[str],
    shards: int | None = None,
    classes: Sequence[str] | None = None,
    choices: Choices = USUAL,
) -> list[Path]:
    """Writes what a COCO json lists; see :func:`write`. The files take the name of the json."""
    name = Path(annotations).stem
    return _converted(lambda track: coco.read(annotations, images, classes, choices, track), output, name, shards)


def write(
    reading: Reading,
    output: str | os.PathLike[str],
    name: str,
    shards: int | None = None,
    track: Track = lambda items, _: items,
) -> list[Path]:
    """Writes ``<name>-00000-of-00003.tfrecord`` and so on, and classes.json; the images' bytes are not changed.

    Read in the order of their names, the files hold the images in the order of ``reading``.

    Args:
        output: the folder.
        shards: number of files; None makes one for each thousand images.

    Returns:
        The paths of the records.

    Raises:
        TfqatError: no image, fewer images than shards, or files in the folder that would be read together with the
            new ones but do not belong to them; nothing is written then.
        OSError: an image cannot be opened, or a file not written.
    """
    count = len(reading.examples)
    if not count:
        raise TfqatError(f"{reading.report}\nNo image is left, so there is nothing to write.")
    shards = -(-count // IMAGES_A_SHARD) if shards is None else shards
    if not 1 <= shards <= count:
        raise TfqatError(f"{shards} shards of {count} images: expected 1 to {count} shards.")
    names = [f"{name}-{index:05d}-of-{shards:05d}.tfrecord" for index in range(shards)]
    _check_folder(Path(output), name, names, reading)
    numbered = iter(track(reading.examples, count))
    with folder_on_success(output) as temporary:
        for index, file in enumerate(names):
            size = count * (index + 1) // shards - count * index // shards
            _write_shard(temporary / file, (next(numbered) for _ in range(size)), reading)
        list(numbered)  # the end of the progress bar
        write_class_map(temporary / CLASS_MAP, reading.class_map)
    return [Path(output) / file for file in names]


def _converted(
    read: Callable[[Track], Reading], output: str | os.PathLike[str], name: str, shards: int | None
) -> list[Path]:
    there = set(Path(output).glob("*.tfrecord"))
    with _progress() as progress:
        reading = read(_tracked(progress, "Checking images"))
        paths = write(reading, output, name, shards, _tracked(progress, "Writing records"))
    print(reading.report)
    more = f" to {paths[-1].name}" if len(paths) > 1 else ""
    print(f"Written: {paths[0]}{more}, {paths[0].with_name(CLASS_MAP)} ({len(reading.class_map.names)} classes).")
    if replaced := len(there & set(paths)):  # the json of another split may have the same name
        print(f"Replaced: {replaced} file{'s' * (replaced > 1)} that had been there under the same name.")
    return paths


def _check_folder(folder: Path, name: str, names: Sequence[str], reading: Reading) -> None:
    others = sorted({path.name for path in folder.glob("*.tfrecord") if path.name.startswith(f"{name}-")} - set(names))
    if others:
        raise TfqatError(
            f"{folder} has records of {name} in another number of files ({some(others, 3)}); read together with the "
            "new ones, they would give images twice. Remove them, or write to another folder."
        )
    class_map = folder / CLASS_MAP
    if class_map.exists() and read_class_map(class_map) != reading.class_map:
        raise TfqatError(
            f"{class_map} has other classes ({some(read_class_map(class_map).names)}) than these records "
            f"({some(reading.class_map.names)}). Name the classes, in that order, or write to another folder."
        )


def _write_shard(path: Path, examples: Iterable[Example], reading: Reading) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            encoded = example.image.read()
            writer.write(tfrecord.record(encoded, _format(encoded), example, reading.class_map))


def _format(encoded: bytes) -> str:
    return next((name for start, name in FORMATS.items() if encoded.startswith(start)), "")


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


def _tracked(progress: Progress, description: str) -> Track:
    def track(items: Iterable[Any], total: int) -> Iterable[Any]:
        return progress.track(items, total=total, description=description)

    return track
