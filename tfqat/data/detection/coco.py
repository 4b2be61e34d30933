"""COCO: one JSON file of images, annotations and categories, and a folder of images.

Source: https://cocodataset.org/#format-data. ``bbox`` is x, y, width, height in pixels, from the top left corner.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from tfqat.core.listing import some
from tfqat.data.detection.clean import USUAL, Choices, Reading, Track, cleaned
from tfqat.data.detection.example import ClassMap, Example, ImageBytes, Object, example
from tfqat.data.detection.paths import inside
from tfqat.data.detection.report import DROPPED, LEFT_OUT, Finding
from tfqat.errors import TfqatError

# What can go wrong where an entry is not what the format says; a huge integer overflows a float.
_BROKEN = (KeyError, TypeError, ValueError, OverflowError)


def read(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    choices: Choices = USUAL,
    track: Track = lambda items, _: items,
) -> Reading:
    """The images that the file ``annotations`` lists, in its order, from the folder ``images``.

    Args:
        classes: names of the categories wanted, in the order of the model's outputs; None takes all, by their number.

    Raises:
        TfqatError: the file is not COCO json, the folder or a class of ``classes`` is not there, or, where
            ``choices.strict``, anything that is not as it should be.
        OSError: the file cannot be opened.
    """
    file, folder = Path(annotations), Path(images)
    if not folder.is_dir():
        raise TfqatError(f"COCO images: no folder at {str(folder)!r}.")
    content = _content(file)
    class_map = _class_map(file, content["categories"], classes)
    findings: list[Finding] = []
    objects = _objects(content["annotations"], _ids(content["images"]), class_map, findings)
    examples = _examples(content["images"], folder, objects, findings)
    return cleaned(str(file), examples, class_map, findings, choices, track)


def class_names(annotations: str | os.PathLike[str]) -> tuple[str, ...]:
    """All categories of a file, by their number; errors as of :func:`read`."""
    return _class_map(Path(annotations), _content(Path(annotations))["categories"], None).names


def _content(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TfqatError(f"{file}: expected COCO json; it cannot be read as JSON ({error}).") from error
    wanted = ("images", "annotations", "categories")
    wrong = [key for key in wanted if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if wrong:
        raise TfqatError(
            f"{file}: expected COCO json, an object with the lists {', '.join(wanted)}; {', '.join(wrong)} "
            f"{'are' if len(wrong) > 1 else 'is'} missing or no list."
        )
    return content


def _class_map(file: Path, categories: Sequence[Any], classes: Sequence[str] | None) -> ClassMap:
    try:
        ids = {str(entry["name"]): int(entry["id"]) for entry in categories}
    except _BROKEN as error:
        raise TfqatError(f"{file}: each category needs a name and a number as id ({error!r}).") from error
    if len(ids) < len(categories):
        raise TfqatError(f"{file}: each category needs a name of its own; one of them is there twice.")
    names = sorted(ids, key=lambda name: ids[name]) if classes is None else list(classes)
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise TfqatError(f"{file}: no category {some(unknown)}; it has {some(ids, 100) or 'none'}.")
    return ClassMap(tuple(names), tuple(ids[name] for name in names))


def _ids(images: Sequence[Any]) -> set[Any]:
    """The images that are listed, also those that cannot be used."""
    ids = (entry.get("id") for entry in images if isinstance(entry, Mapping))
    return {number for number in ids if isinstance(number, Hashable)}


def _objects(
    annotations: Sequence[Any], images: Set[Any], class_map: ClassMap, findings: list[Finding]
) -> dict[Any, list[Object]]:
    """Image's id -> its objects."""
    labels = {number: label for label, number in enumerate(class_map.ids)}
    objects: dict[Any, list[Object]] = defaultdict(list)
    for index, entry in enumerate(annotations):
        where = f"annotation {_id(entry, index)}"

        def dropped(kind: str, detail: str, where: str = where) -> None:
            findings.append(Finding(kind, where, detail, DROPPED))

        try:
            image, category = entry["image_id"], int(entry["category_id"])
            if not entry.get("bbox") and entry.get("segmentation"):
                dropped("no_box", f"image {image}")
                continue
            left, top, width, height = (float(number) for number in entry["bbox"])
            crowd, area = bool(int(entry.get("iscrowd", 0))), entry.get("area")
            found = Object(
                (top, left, top + height, left + width),
                labels.get(category, -1),
                crowd,
                None if area is None else float(area),
            )
            listed = image in images  # an id that cannot be a key is a broken one
        except _BROKEN as error:
            dropped("broken_annotation", repr(error))
            continue
        if found.label < 0:
            dropped("unknown_class", f"image {image}, category {category}")
        elif not listed:
            dropped("unknown_image", f"image {image}")
        else:
            objects[image].append(found)
    return objects


def _id(entry: Any, index: int) -> Any:
    return entry.get("id", f"at index {index}") if isinstance(entry, Mapping) else f"at index {index}"


def _examples(
    images: Sequence[Any], folder: Path, objects: Mapping[Any, Sequence[Object]], findings: list[Finding]
) -> list[Example]:
    examples, seen = [], set()
    for index, entry in enumerate(images):
        try:
            key = entry["id"]
            twice = key in seen
            seen.add(key)
            name = str(entry["file_name"])
            size = int(entry.get("height") or 0), int(entry.get("width") or 0)
        except _BROKEN as error:
            findings.append(Finding("broken_annotation", f"image {_id(entry, index)}", repr(error), LEFT_OUT))
            continue
        file = inside(folder, name)
        if twice:
            findings.append(Finding("duplicate", name, f"image {key} is listed before", LEFT_OUT))
        elif file is None:
            findings.append(Finding("outside_path", f"image {key}", f"file_name {name!r}", LEFT_OUT))
        elif not file.is_file():
            findings.append(Finding("missing_image", name, f"no file {file}", LEFT_OUT))
        else:
            examples.append(example(ImageBytes(file), name, str(key), size, objects.get(key, ())))
    return examples
