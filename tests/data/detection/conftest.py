"""Small data sets in each format, written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BCCD = Path(__file__).parents[3].parent / "shared/data/bccd"
# File -> (height, width), objects as (class, (ymin, xmin, ymax, xmax)).
SCENES = {
    "a.jpg": ((48, 64), [("dog", (4, 8, 20, 40)), ("cat", (0, 0, 48, 64))]),
    "b.jpg": ((60, 32), [("cat", (10, 1, 59, 31))]),
    "c.jpg": ((32, 32), []),
}
SIDES = ("ymin", "xmin", "ymax", "xmax")
COCO_IDS = {"cat": 17, "dog": 3}


def write_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, ((height, width), _)) in enumerate(SCENES.items()):
        pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=90)


def voc_xml(name, size, objects):
    def entry(label, box):
        corners = "".join(f"<{side}>{value}</{side}>" for side, value in zip(SIDES, box, strict=True))
        return f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"

    height, width = size
    inside = "".join(entry(label, box) for label, box in objects)
    sizes = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{sizes}{inside}</annotation>"


@pytest.fixture(scope="session")
def bccd():
    """The blood cells data set (364 images, MIT licence), where it is beside the repository."""
    if not BCCD.is_dir():
        pytest.skip(f"BCCD is not at {BCCD}")
    return BCCD


@pytest.fixture
def scenes():
    return SCENES


@pytest.fixture
def write_xml(voc_folder):
    """Writes the annotation of an image of the VOC folder anew."""

    def write(name, size, objects):
        (voc_folder / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", size, objects))

    return write


@pytest.fixture
def voc_folder(tmp_path):
    root = tmp_path / "voc"
    for part in ("Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    write_images(root / "JPEGImages")
    for name, (size, objects) in SCENES.items():
        (root / "Annotations" / name.replace("jpg", "xml")).write_text(voc_xml(name, size, objects))
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    return root


@pytest.fixture
def coco_content():
    """The scenes as the content of a COCO json."""
    images, annotations = [], []
    for number, (name, ((height, width), objects)) in enumerate(SCENES.items(), 100):
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for label, (top, left, bottom, right) in objects:
            bbox = [left, top, right - left, bottom - top]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": COCO_IDS[label], "bbox": bbox,
                "area": 7.5, "iscrowd": 0, "segmentation": [[0, 0, 1, 1, 0, 1]],
            })  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in COCO_IDS.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def coco_folder(tmp_path):
    write_images(tmp_path / "coco" / "images")
    return tmp_path / "coco"


@pytest.fixture
def write_coco(coco_folder):
    """Writes a content as coco/instances.json; returns the paths of it and of the images."""

    def write(content):
        (coco_folder / "instances.json").write_text(json.dumps(content))
        return coco_folder / "instances.json", coco_folder / "images"

    return write
