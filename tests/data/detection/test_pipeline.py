"""Pipeline: batches, their padding, what decides an epoch, and splits that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfqat.data.detection import tfrecord, voc
from tfqat.data.detection.augment import Augment
from tfqat.data.detection.example import write_class_map
from tfqat.data.detection.pipeline import Input, load
from tfqat.errors import TfqatError

SMALL = Input((128, 256), "none")
ALL = Augment(flip=True, scale=(0.5, 2.0), color=0.2)


@pytest.fixture
def reading(voc_folder):
    return voc.read(voc_folder, "train")


def arrays(dataset):
    return [(image.numpy(), {name: value.numpy() for name, value in targets.items()}) for image, targets in dataset]


def check_equal(one, other):
    for (image, targets), (image_2, targets_2) in zip(one, other, strict=True):
        np.testing.assert_array_equal(image, image_2)
        for name, value in targets.items():
            np.testing.assert_array_equal(value, targets_2[name])


def test_validation_is_whole_padded_and_maps_back(reading):
    data = load(reading, reading, SMALL, 2, seed=0)
    batches = arrays(data.validation)
    assert [image.shape for image, _ in batches] == [(2, 128, 256, 3), (1, 128, 256, 3)]
    images = np.concatenate([image for image, _ in batches])
    targets = {name: np.concatenate([part[name] for _, part in batches]) for name in batches[0][1]}
    assert targets["index"].tolist() == [0, 1, 2]
    assert targets["classes"].tolist() == [[1, 0], [0, -1], [-1, -1]]
    for row, one in enumerate(reading.examples):
        count = len(one.boxes)
        back = targets["boxes"][row, :count] / np.tile(targets["scale"][row], 2)
        np.testing.assert_allclose(back, one.boxes, atol=1e-4)
        assert not targets["boxes"][row, count:].any()
        assert targets["size"][row].tolist() == [one.height, one.width]
        np.testing.assert_array_equal(targets["areas"][row, :count], one.areas)
        assert not targets["areas"][row, count:].any()
        high, wide = np.round(np.array([one.height, one.width]) * targets["scale"][row]).astype(int)
        assert high == 128
        assert not images[row, :, wide:].any()
        pixels = np.asarray(Image.open(one.image.path).resize((wide, high), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(images[row, :, :wide] - pixels).mean() < 4  # PIL rounds, and decodes JPEG by another library


def test_padding_is_0_after_normalization(reading):
    data = load(reading, reading, Input((128, 128), "torch"), 3, seed=0)
    ((images, _),) = arrays(data.validation)
    assert not images[1, :, 70:].any()
    (plain,) = arrays(load(reading, reading, Input((128, 128), "none"), 3, seed=0).validation)
    expected = (plain[0][1, :, :60] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(images[1, :, :60], expected, atol=1e-4)


def test_an_epoch_is_a_function_of_seed_and_number(reading):
    one, two = (load(reading, reading, SMALL, 2, seed=4, augment=ALL) for _ in range(2))
    assert one.steps == 1
    check_equal(arrays(one.train(2)), arrays(two.train_from(1).skip(one.steps).take(one.steps)))
    others = (arrays(one.train(3)), arrays(load(reading, reading, SMALL, 2, seed=5, augment=ALL).train(2)))
    for other in others:
        assert (other[0][0] != arrays(one.train(2))[0][0]).any()
    assert set(arrays(one.train(0))[0][1]) == {"boxes", "classes", "crowd"}


def test_calibration_is_not_augmented_and_has_every_image(reading):
    data = load(reading, reading, SMALL, 1, seed=0, augment=ALL)
    whole = {targets["index"][0]: image for image, targets in arrays(data.validation)}
    found = {targets["index"][0]: image for image, targets in arrays(data.calibration)}
    assert set(found) == {0, 1, 2}
    for index, image in found.items():
        np.testing.assert_array_equal(image, whole[index])


def test_records_give_the_batches_of_the_images_they_were_made_of(reading, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        for one in reading.examples:
            writer.write(tfrecord.record(one.image.read(), "jpeg", one, reading.class_map))
    write_class_map(tmp_path / "classes.json", reading.class_map)
    again = tfrecord.read(tmp_path / "x.tfrecord")
    one, two = (load(source, source, SMALL, 3, seed=1, augment=ALL) for source in (reading, again))
    check_equal(arrays(one.train(0)), arrays(two.train(0)))
    check_equal(arrays(one.validation), arrays(two.validation))


def test_classes_follow_the_boxes_that_stay(voc_folder, write_xml):
    """Of two boxes in opposite corners a large scale leaves one at most times; its class must be its own."""
    write_xml("a", (48, 64), [("dog", (0, 0, 8, 8)), ("cat", (40, 56, 48, 64))])
    (voc_folder / "ImageSets/Main/one.txt").write_text("a\n")
    reading = voc.read(voc_folder, "one")
    data = load(reading, reading, Input((128, 128), "none"), 1, seed=0, augment=Augment(scale=(2.0, 2.0)))
    seen = set()
    for epoch in range(12):
        ((_, targets),) = arrays(data.train(epoch))
        seen.add(tuple(targets["classes"][0]))
        for box, label in zip(targets["boxes"][0], targets["classes"][0], strict=True):
            # The image is 192 x 256 before it is cut to 128 x 128.
            assert {1: (box <= 32).all(), 0: (box[2:] > 96).all(), -1: not box.any()}[label]
    assert (0, -1) in seen or (1, -1) in seen


@pytest.mark.parametrize("size", [(100, 128), (128, 0), (64, 64), (512, 500)])
def test_a_size_without_whole_cells_is_refused(size):
    with pytest.raises(TfqatError, match="multiples of 128, such as"):
        Input(size)


def test_a_coarsest_level_of_6_takes_multiples_of_64():
    assert Input((64, 192), max_level=6).size == (64, 192)


def test_splits_that_cannot_be_used(reading, voc_folder):
    (voc_folder / "ImageSets/Main/none.txt").write_text("")
    with pytest.raises(TfqatError, match="validation split has no image"):
        load(reading, voc.read(voc_folder, "none"), SMALL, 2, seed=0)
    with pytest.raises(TfqatError, match="Both splits need one class map; training has cat, dog, validation dog, cat"):
        load(reading, voc.read(voc_folder, "train", classes=["dog", "cat"]), SMALL, 2, seed=0)


def test_images_without_any_box_make_batches(voc_folder):
    (voc_folder / "ImageSets/Main/bare.txt").write_text("c\n")
    reading = voc.read(voc_folder, "bare")
    ((_, targets),) = arrays(load(reading, reading, SMALL, 2, seed=0, augment=ALL).train(0))
    assert targets["classes"].tolist() == [[-1]]
