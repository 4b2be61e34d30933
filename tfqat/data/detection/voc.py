"""Pascal VOC: a folder with Annotations (an XML file an image), ImageSets/Main (a text file a split) and JPEGImages.

Source: VOC2012 development kit, section 6. ``difficult`` and ``truncated`` objects are read as any other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from tfqat.core.listing import some
from tfqat.data.detection.clean import USUAL, Choices, Reading, Track, cleaned
from tfqat.data.detection.example import ClassMap, Example, ImageBytes, Object, example
from tfqat.data.detection.paths import inside
from tfqat.data.detection.report import DROPPED, LEFT_OUT, Finding
from tfqat.errors import TfqatError

FLAG = re.compile(r"\s+(-1|0|1)$")
CORNERS = ("ymin", "xmin", "ymax", "xmax")


class _UnusableError(Exception):
    """An image of the split that cannot be had."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def read(
    folder: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    choices: Choices = USUAL,
    track: Track = lambda items, _: items,
) -> Reading:
    """The images of ``ImageSets/Main/<split>.txt``, in its order.

    Args:
        classes: the classes' names in the order of the model's outputs; None takes all names of all the folder's
            annotations, sorted, so that each split gives the same.

    Raises:
        TfqatError: no such split, or, where ``choices.strict``, anything that is not as it should be.
    """
    root = Path(folder)
    findings: list[Finding] = []
    names = _listed(root, split, findings)
    class_map = ClassMap.numbered(all_classes(root) if classes is None else classes)
    examples = []
    for name in names:
        try:
            examples.append(_example(root, name, class_map, findings))
        except _UnusableError as error:
            findings.append(Finding(error.kind, name, error.detail, LEFT_OUT))
    return cleaned(f"{root} ({split})", examples, class_map, findings, choices, track)


def parse(data: bytes) -> Element:
    """The root of an XML document without a document type, where entities would be declared.

    Entities can expand to gigabytes or name files of this machine; an annotation has no use for them.

    Raises:
        ValueError: not well-formed XML, or XML with a document type.
    """
    parser, builder = expat.ParserCreate(), TreeBuilder()

    def refuse(*_: object) -> None:
        raise ValueError("has a document type (DOCTYPE), which is refused: remove it")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"is not XML ({error})") from error
    return builder.close()


def _listed(root: Path, split: str, findings: list[Finding]) -> list[str]:
    """The names in a split's file."""
    sets = root / "ImageSets" / "Main"
    file = inside(sets, f"{split}.txt")
    if file is None or not file.is_file():
        there = some(sorted(path.stem for path in sets.glob("*.txt"))) or "none"
        raise TfqatError(f"{root}: no split {split!r}; expected the file {sets / split}.txt. Splits there: {there}.")
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    names = [_name(line.strip(), root / "Annotations") for line in text.splitlines() if line.strip()]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            findings.append(Finding("duplicate", name, f"in {file.name}", "read once"))
        seen.add(name)
    return list(dict.fromkeys(names))


def _name(line: str, annotations: Path) -> str:
    """The name in a line, which may hold spaces; behind it may stand 1, 0 or -1, as in VOC's files of one class."""
    file = inside(annotations, f"{line}.xml")
    return line if file is not None and file.is_file() else FLAG.sub("", line)


def all_classes(root: Path) -> list[str]:
    """The names of all objects of all annotations below ``root``, sorted."""
    names: set[str] = set()
    for file in sorted((root / "Annotations").glob("*.xml")):
        try:
            names |= {(entry.findtext("name") or "").strip() for entry in parse(file.read_bytes()).iter("object")}
        except ValueError:  # told where the image is read
            continue
    return sorted(names - {""})


def _example(root: Path, name: str, class_map: ClassMap, findings: list[Finding]) -> Example:
    """The image that a split calls ``name``."""
    file = inside(root / "Annotations", f"{name}.xml")
    if file is None:
        raise _UnusableError("outside_path", f"in the split, {name!r}")
    if not file.is_file():
        raise _UnusableError("missing_annotation", f"no file {file}")
    try:
        tree = parse(file.read_bytes())
        filename = (tree.findtext("filename") or "").strip() or f"{name}.jpg"
        size = _size(tree)
    except (ValueError, OverflowError) as error:
        raise _UnusableError("broken_annotation", f"{file.name} {error}") from error
    image = inside(root / "JPEGImages", filename)
    if image is None:
        raise _UnusableError("outside_path", f"filename {filename!r} in {file.name}")
    if not image.is_file():
        raise _UnusableError("missing_image", f"no file {image}")
    return example(ImageBytes(image), filename, name, size, _objects(tree, name, class_map, findings))


def _size(tree: Element) -> tuple[int, int]:
    """Height and width; 0 where they are not given."""
    height, width = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    return height, width


def _objects(tree: Element, image: str, class_map: ClassMap, findings: list[Finding]) -> list[Object]:
    objects = []
    for number, entry in enumerate(tree.findall("object"), 1):
        try:
            name = _text(entry, "name")
            top, left, bottom, right = (float(_text(entry, f"bndbox/{corner}")) for corner in CORNERS)
        except ValueError as error:
            findings.append(Finding("broken_annotation", image, f"object {number} {error}", DROPPED))
            continue
        if name not in class_map.names:
            findings.append(Finding("unknown_class", image, f"object {number}, {name!r}", DROPPED))
            continue
        objects.append(Object((top, left, bottom, right), class_map.names.index(name)))
    return objects


def _text(entry: Element, path: str) -> str:
    text = (entry.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"has no {path}")
    return text
