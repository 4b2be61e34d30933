"""TFRecord: written records are read by TensorFlow's own parser, foreign and damaged ones by us."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfqat.data.detection import coco, tfrecord
from tfqat.data.detection.clean import Choices
from tfqat.data.detection.example import ClassMap, ImageBytes, Object, example, write_class_map
from tfqat.errors import TfqatError

CLASSES = ClassMap(("dog", "cat"), (3, 17))


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in records:
            writer.write(data)


def proto(**fields):
    """A tf.train.Example written field by field."""
    kinds = {bytes: ("bytes_list", tf.train.BytesList), float: ("float_list", tf.train.FloatList)}
    features = {}
    for name, values in fields.items():
        field, kind = kinds.get(type(values[0]), ("int64_list", tf.train.Int64List))
        features[name] = tf.train.Feature(**{field: kind(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def records(tmp_path, write_coco, coco_content):
    """The scenes as a TFRecord file with its class map, and what they were written from."""
    coco_content["annotations"][0] |= {"bbox": [1.37, 2.51, 10.29, 5.13], "iscrowd": 1}
    reading = coco.read(*write_coco(coco_content))
    write(
        tmp_path / "x.tfrecord",
        [tfrecord.record(one.image.read(), "jpeg", one, reading.class_map) for one in reading.examples],
    )
    write_class_map(tmp_path / "classes.json", reading.class_map)
    return tmp_path / "x.tfrecord", reading


def test_what_is_written_is_read_again(records):
    file, written = records
    reading = tfrecord.read(file)
    assert reading.class_map == written.class_map
    for one, other in zip(reading.examples, written.examples, strict=True):
        assert (one.name, one.source_id, one.height, one.width) == (
            other.name,
            other.source_id,
            other.height,
            other.width,
        )
        for field in ("boxes", "classes", "crowd", "areas"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
            assert getattr(one, field).dtype == getattr(other, field).dtype
        assert one.image.read() == other.image.read()
        assert one.image.path == file
    assert reading.report.findings == ()


def test_tensorflow_s_parser_reads_what_is_written(records):
    """The fields and types of the object detection API's decoder."""
    file, written = records
    ragged = {f"image/object/bbox/{side}": tf.io.VarLenFeature(tf.float32) for side in ("ymin", "xmin", "ymax", "xmax")}
    ragged |= {f"image/object/{name}": tf.io.VarLenFeature(tf.int64) for name in ("class/label", "is_crowd")}
    ragged |= {
        "image/object/class/text": tf.io.VarLenFeature(tf.string),
        "image/object/area": tf.io.VarLenFeature(tf.float32),
    }
    single = {
        f"image/{name}": tf.io.FixedLenFeature((), tf.string) for name in ("encoded", "format", "filename", "source_id")
    }
    single |= {f"image/{name}": tf.io.FixedLenFeature((), tf.int64) for name in ("height", "width")}
    for data, one in zip(tf.data.TFRecordDataset(str(file)), written.examples, strict=True):
        parsed = tf.io.parse_single_example(data, ragged | single)
        assert parsed["image/encoded"].numpy() == one.image.read()
        assert parsed["image/object/class/label"].values.numpy().tolist() == [
            written.class_map.ids[label] for label in one.classes
        ]
        right = parsed["image/object/bbox/xmax"].values.numpy()
        np.testing.assert_allclose(right, one.boxes[:, 3] / one.width, rtol=1e-6)


@pytest.mark.parametrize("width", [640, 641, 8191])
@pytest.mark.parametrize("unit", [1, 100], ids=["whole", "hundredths"])
def test_whole_pixels_and_coco_s_decimals_come_back_exact(tmp_path, width, unit):
    """Through float32 fractions."""
    left = np.arange(0, width * unit - unit, max(unit, 7)) / unit
    objects = [Object((1, x, 2, x + 1), 0) for x in left]
    Image.new("RGB", (width, 3)).save(tmp_path / "wide.png")
    one = example(ImageBytes(tmp_path / "wide.png"), "wide.png", "1", (3, width), objects)
    write(tmp_path / "x.tfrecord", [tfrecord.record(one.image.read(), "png", one, CLASSES)])
    again = tfrecord.read(tmp_path / "x.tfrecord", CLASSES).examples[0]
    np.testing.assert_array_equal(again.boxes, one.boxes)


BOX = {
    f"image/object/bbox/{side}": [value]
    for side, value in zip(("ymin", "xmin", "ymax", "xmax"), (0.25, 0.0, 0.5, 1.0), strict=True)
}


@pytest.fixture
def jpeg(coco_folder):
    return (coco_folder / "images" / "a.jpg").read_bytes()


def read_one(tmp_path, data):
    write(tmp_path / "one.tfrecord", [data])
    return tfrecord.read(tmp_path / "one.tfrecord", CLASSES)


@pytest.mark.parametrize("label", [{"image/object/class/text": [b"cat"]}, {"image/object/class/label": [17]}])
def test_a_record_of_the_least_fields(tmp_path, jpeg, label):
    one = read_one(tmp_path, proto(**{"image/encoded": [jpeg]}, **BOX, **label)).examples[0]
    assert (one.height, one.width, one.name) == (48, 64, "one.tfrecord, record 1")
    assert one.boxes.tolist() == [[12, 0, 24, 64]]
    assert one.classes.tolist() == [1]
    assert one.areas.tolist() == [12 * 64]


WRONG = {
    "no class": ({}, "unknown_class"),
    "other number": ({"image/object/class/label": [5]}, "unknown_class"),
    "number and name differ": ({"image/object/class/label": [3], "image/object/class/text": [b"cat"]}, "unknown_class"),
    "two labels": ({"image/object/class/label": [3, 3]}, "broken_record"),
    "corners differ": ({"image/object/bbox/xmax": [0.5, 0.6]}, "broken_record"),
    "corner of text": ({"image/object/bbox/xmax": [b"wide"]}, "broken_record"),
    "no image": ({"image/encoded": [b""]}, "broken_record"),
    "image a number": ({"image/encoded": [4]}, "broken_record"),
    "broken image": ({"image/encoded": [b"\xff\xd8\xff\xe0cut"], "image/object/class/label": [3]}, "broken_image"),
}


@pytest.mark.parametrize(("fields", "kind"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_record_is_named(tmp_path, jpeg, fields, kind):
    reading = read_one(tmp_path, proto(**({"image/encoded": [jpeg]} | BOX | fields)))
    assert reading.report.findings[0].kind == kind
    assert reading.report.boxes == 0


def test_what_is_no_example(tmp_path):
    assert read_one(tmp_path, b"\xff\xff no protobuf").report.findings[0].kind == "broken_record"


@pytest.mark.parametrize("where", [-1, -700, 5], ids=["in the tail", "in the last record", "in the first length"])
def test_a_truncated_file_keeps_the_records_before(records, where):
    file, written = records
    file.write_bytes(file.read_bytes()[:where])
    reading = tfrecord.read(file)
    left = 0 if where > 0 else len(written.examples) - 1
    assert len(reading.examples) == left
    assert reading.report.findings[0].kind == "truncated"
    assert f"{left} records before it are read" in str(reading.report)
    with pytest.raises(TfqatError, match="damaged TFRecord file"):
        tfrecord.read(file, choices=Choices(strict=True))


def test_a_flipped_bit_and_a_compressed_file_are_damage(records):
    file, _ = records
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert tfrecord.read(file).report.findings[0].kind == "truncated"
    file.write_bytes(gzip.compress(bytes(data)))
    assert tfrecord.read(file).report.findings[0].kind == "truncated"


def test_files_of_a_pattern_in_sorted_order(records):
    file, _ = records
    file.rename(file.with_name("x-1.tfrecord"))
    file.with_name("x-0.tfrecord").write_bytes(file.with_name("x-1.tfrecord").read_bytes())
    reading = tfrecord.read(file.with_name("x-*.tfrecord"))
    assert [one.image.path.name for one in reading.examples] == ["x-0.tfrecord"] * 3 + ["x-1.tfrecord"] * 3


def test_files_of_a_set_that_are_empty_or_not_there(records):
    """Only those that the pattern covers are missed."""
    file, _ = records
    shards = [file.with_name(f"x-{index:05d}-of-00004.tfrecord") for index in range(4)]
    shards[1].write_bytes(b"")
    file.rename(shards[2])
    reading = tfrecord.read(file.with_name("x-*"))
    assert [(one.kind, one.done) for one in reading.report.findings] == [("missing_shard", "left out")] * 2 + [
        ("truncated", "left out")
    ]
    for shard, said in ((shards[0], "no file"), (shards[3], "no file"), (shards[1], "is empty")):
        assert any(shard.name in line and said in line for line in str(reading.report).splitlines())
    with pytest.raises(TfqatError, match="strict reading found 3 problems"):
        tfrecord.read(file.with_name("x-*"), choices=Choices(strict=True))
    assert len(tfrecord.read(shards[2], choices=Choices(strict=True)).examples) == 3
    assert len(tfrecord.read(file.with_name("x-0000[23]*"), choices=Choices(strict=False)).report.findings) == 1


def test_a_pattern_of_all_that_is_in_the_folder(records):
    assert len(tfrecord.read(records[0].with_name("*"), choices=Choices(strict=True)).examples) == 3


def test_no_file_and_no_class_map(tmp_path, records):
    with pytest.raises(TfqatError, match="no file matches"):
        tfrecord.read(tmp_path / "none-*")
    with pytest.raises(TfqatError, match=r"no file matches .*Its files are '.*/\*.tfrecord'"):
        tfrecord.read(tmp_path)
    marked = b"\xef\xbb\xbf" + (tmp_path / "classes.json").read_bytes()
    (tmp_path / "classes.json").write_bytes(marked)
    assert tfrecord.read(records[0]).class_map == records[1].class_map
    (tmp_path / "classes.json").unlink()
    with pytest.raises(TfqatError, match="no class map at"):
        tfrecord.read(records[0])


@pytest.mark.parametrize(
    "text", ["[]x", "[1]", '{"a": "cat"}', '{"1": 2}', '{"1": "cat", "2": "cat"}', '"cat"', "[" * 99999]
)
def test_a_class_map_that_is_none(records, text):
    records[0].with_name("classes.json").write_text(text)
    with pytest.raises(TfqatError, match="class map"):
        tfrecord.read(records[0])
