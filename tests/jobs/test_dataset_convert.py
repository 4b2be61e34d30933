"""Dataset convert: BCCD there and back, files that belong together, and nothing where anything goes wrong."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfqat.data.detection import coco, tfrecord, voc
from tfqat.data.detection.clean import Choices, cleaned
from tfqat.data.detection.example import ClassMap, ImageBytes, Object, example, read_class_map
from tfqat.errors import TfqatError
from tfqat.jobs.dataset_convert import convert_coco, convert_voc, write

BCCD = Path(__file__).parents[2].parent / "shared/data/bccd"
SECONDS = 20


@pytest.fixture
def reading(tmp_path):
    """Five images, one a PNG; the second has no box, the third a crowd."""
    examples = []
    for index in range(5):
        file = tmp_path / f"{index}.{'png' if index == 4 else 'jpg'}"
        Image.effect_noise((40, 30), 60).convert("RGB").save(file)
        objects = [] if index == 1 else [Object((1, 2, 9, 8 + index), index % 2, crowd=index == 2, area=11.5)]
        examples.append(example(ImageBytes(file), file.name, str(index), (30, 40), objects))
    return cleaned("five", examples, ClassMap(("cat", "dog"), (17, 3)), [], Choices())


def check_same(one, other):
    assert one.class_map == other.class_map
    for mine, theirs in zip(one.examples, other.examples, strict=True):
        assert (mine.name, mine.source_id) == (theirs.name, theirs.source_id)
        assert mine.image.read() == theirs.image.read()
        for field in ("boxes", "classes", "crowd", "areas"):
            np.testing.assert_array_equal(getattr(mine, field), getattr(theirs, field))


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"BCCD is not at {BCCD}")
def test_bccd_there_and_back(tmp_path, capsys):
    begun = time.perf_counter()
    for split in ("train", "val", "test"):
        convert_voc(BCCD, split, tmp_path / "records")
    spent = time.perf_counter() - begun
    total = 0
    for split in ("train", "val", "test"):
        again = tfrecord.read(tmp_path / "records" / f"{split}-*", choices=Choices(strict=True))
        check_same(again, voc.read(BCCD, split))
        total += len(again.examples)
    assert total == 364
    assert "1 box of no area: dropped" in capsys.readouterr().out
    assert spent < SECONDS


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_shards_hold_the_images_in_their_order(reading, tmp_path, shards):
    paths = write(reading, tmp_path / "out", "five", shards)
    assert [path.name for path in paths] == [f"five-{k:05d}-of-{shards:05d}.tfrecord" for k in range(shards)]
    counts = [len(list(tf.data.TFRecordDataset(str(path)))) for path in paths]
    assert sum(counts) == 5
    assert max(counts) - min(counts) <= 1
    check_same(tfrecord.read(tmp_path / "out" / "five-*"), reading)
    assert read_class_map(tmp_path / "out" / "classes.json") == reading.class_map
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classes.json",
        *(path.name for path in paths),
    ]


def test_the_image_format_is_named(reading, tmp_path):
    (path,) = write(reading, tmp_path / "out", "five")
    feature = {"image/format": tf.io.FixedLenFeature((), tf.string)}
    found = [
        tf.io.parse_single_example(data, feature)["image/format"].numpy() for data in tf.data.TFRecordDataset(str(path))
    ]
    assert found == [b"jpeg"] * 4 + [b"png"]


def test_coco_there_and_back_keeps_its_category_numbers(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.effect_noise((40, 30), 60).save(tmp_path / "images" / "a.png")
    (tmp_path / "val.json").write_text(
        '{"images": [{"id": 7, "file_name": "a.png"}], "categories": [{"id": 90, "name": "cat"}, '
        '{"id": 4, "name": "dog"}], '
        '"annotations": [{"image_id": 7, "category_id": 90, "bbox": [1.25, 2.5, 20, 10.75], "area": 3, "iscrowd": 1}]}'
    )
    convert_coco(tmp_path / "val.json", tmp_path / "images", tmp_path / "out")
    again = tfrecord.read(tmp_path / "out" / "val-*")
    check_same(again, coco.read(tmp_path / "val.json", tmp_path / "images"))
    assert again.class_map == ClassMap(("dog", "cat"), (4, 90))
    assert again.examples[0].boxes.tolist() == [[2.5, 1.25, 13.25, 21.25]]
    said = capsys.readouterr().out
    assert "val-00000-of-00001.tfrecord" in said
    assert "Replaced" not in said
    convert_coco(tmp_path / "val.json", tmp_path / "images", tmp_path / "out")
    assert "Replaced: 1 file that had been there under the same name." in capsys.readouterr().out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_image_that_goes_while_records_are_written_leaves_the_folder_as_it_was(reading, tmp_path):
    write(reading, tmp_path / "out", "five", 2)
    before = contents(tmp_path / "out")
    (tmp_path / "4.png").unlink()
    with pytest.raises(FileNotFoundError):
        write(reading, tmp_path / "out", "five", 2)
    assert contents(tmp_path / "out") == before
    with pytest.raises(FileNotFoundError):
        write(reading, tmp_path / "new", "five", 2)
    assert not (tmp_path / "new").exists()


def test_records_that_would_be_read_with_the_new_ones_are_not_passed_over(reading, tmp_path):
    write(reading, tmp_path / "out", "five", 2)
    write(reading, tmp_path / "out", "five", 2)
    write(reading, tmp_path / "out", "other", 3)
    with pytest.raises(TfqatError, match=r"another number of files \(five-00000-of-00002"):
        write(reading, tmp_path / "out", "five", 3)


def test_a_class_map_of_other_classes_is_not_replaced(reading, tmp_path):
    write(reading, tmp_path / "out", "five")
    other = cleaned("x", reading.examples, ClassMap(("dog", "cat"), (3, 17)), [], Choices())
    with pytest.raises(TfqatError, match=r"has other classes \(cat, dog\) than these records \(dog, cat\)"):
        write(other, tmp_path / "out", "x")


@pytest.mark.parametrize("shards", [0, 6])
def test_a_number_of_shards_that_cannot_be(reading, tmp_path, shards):
    with pytest.raises(TfqatError, match="expected 1 to 5 shards"):
        write(reading, tmp_path / "out", "five", shards)
    assert not (tmp_path / "out").exists()


def test_no_image_gives_no_file(tmp_path):
    empty = cleaned("none", [], ClassMap.numbered(["cat"]), [], Choices())
    with pytest.raises(TfqatError, match="nothing to write"):
        write(empty, tmp_path / "out", "none")
    assert not (tmp_path / "out").exists()
