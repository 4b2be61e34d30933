"""A folder per class: labels, preprocessing, augmentation, and folders that are not as they should be."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from tfqat.data import held_out, load
from tfqat.errors import TfqatError
from tfqat.spec.datasets import Augment, ImageFolder

COLORS = {"blue": (0, 0, 200), "red": (200, 10, 0)}


@pytest.fixture
def folders(tmp_path):
    for part, count in (("train", 6), ("val", 3)):
        for name, color in COLORS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (24, 20), color)
                image.paste((255, 255, 255), (0, 0, 3 + index, 5))
                image.save(tmp_path / part / name / f"{index}.png")
    return tmp_path


def spec(folders, **changed):
    base = {"train_dir": str(folders / "train"), "val_dir": str(folders / "val"), "image_size": (20, 24)}
    return ImageFolder(kind="image_folder", batch_size=4, **(base | changed))


def arrays(dataset):
    images, labels = zip(*[(x.numpy(), y.numpy()) for x, y in dataset], strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_labels_are_the_sorted_folders(folders):
    data = load(spec(folders, preprocessing="none"), seed=0)
    assert data.class_names == ("blue", "red")
    assert data.num_classes == 2
    images, labels = arrays(data.validation)
    corner = images[:, -1, -1]  # the part without the white mark
    np.testing.assert_array_equal(corner[labels == 0], [COLORS["blue"]] * 3)
    np.testing.assert_array_equal(corner[labels == 1], [COLORS["red"]] * 3)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_preprocessing_is_that_of_keras_applications(folders, mode):
    plain = arrays(load(spec(folders, preprocessing="none"), seed=0).validation)[0]
    ours = arrays(load(spec(folders, preprocessing=mode), seed=0).validation)[0]
    module = {"caffe": "resnet50", "torch": "densenet", "tf": "mobilenet_v2"}[mode]
    expected = getattr(keras.applications, module).preprocess_input(plain.copy(), data_format="channels_last")
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_flip_mirrors_about_half_of_the_training_images_only(folders):
    dataset = spec(folders, preprocessing="none", augment=Augment(flip=True))
    data = load(dataset, seed=0)
    mirrored = []
    for epoch in range(5):
        images, _ = arrays(data.train(epoch))
        left, right = images[:, 0, 0], images[:, 0, -1]
        mirrored += list((right.min(axis=-1) == 255) & (left.min(axis=-1) < 255))
    assert 0.25 < np.mean(mirrored) < 0.75
    for part in (data.validation, data.calibration):
        assert (arrays(part)[0][:, 0, 0] == 255).all()


def test_crop_moves_training_images_and_cuts_the_middle_of_others(folders):
    data = load(spec(folders, preprocessing="none", augment=Augment(crop=True)), seed=0)
    images, _ = arrays(data.train(0))
    assert images.shape[1:] == (20, 24, 3)
    assert len({image.tobytes() for image in arrays(data.train(1))[0]} - {image.tobytes() for image in images}) > 6
    assert arrays(data.validation)[0].shape == (6, 20, 24, 3)


def test_augmentation_is_a_function_of_seed_and_epoch(folders):
    dataset = spec(folders, augment=Augment(flip=True, crop=True))
    one, two = load(dataset, seed=4), load(dataset, seed=4)
    np.testing.assert_array_equal(arrays(one.train(2))[0], arrays(two.train_from(1).skip(two.steps).take(two.steps))[0])
    assert (arrays(one.train(2))[0] != arrays(load(dataset, seed=5).train(2))[0]).any()


def test_gray_and_palette_images_become_rgb(folders):
    Image.new("L", (24, 20), 9).save(folders / "val" / "red" / "gray.png")
    Image.new("P", (24, 20)).save(folders / "val" / "red" / "palette.gif")
    assert arrays(load(spec(folders), seed=0).validation)[0].shape == (8, 20, 24, 3)


def _truncate(folders):
    file = folders / "train" / "red" / "broken.jpg"
    Image.effect_noise((64, 64), 80).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-300])
    (folders / "val" / "blue" / "text.png").write_text("no image")
    return file


def test_corrupt_images_are_counted_and_named(folders):
    file = _truncate(folders)
    with pytest.raises(TfqatError) as error:
        load(spec(folders), seed=0)
    assert "2 images cannot be decoded" in str(error.value)
    assert str(file) in str(error.value)
    assert "text.png" in str(error.value)
    assert "skip_corrupt" in str(error.value)


def test_corrupt_images_are_left_out_where_the_spec_says_so(folders, capsys):
    _truncate(folders)
    data = load(spec(folders, skip_corrupt=True), seed=0)
    assert len(arrays(data.validation)[0]) == 6
    assert data.steps == 3
    assert "left out 2 images" in capsys.readouterr().out


def test_a_class_with_only_corrupt_images(folders):
    for file in (folders / "val" / "red").iterdir():
        file.write_bytes(b"")
    with pytest.raises(TfqatError, match="No decodable image is left in class red"):
        load(spec(folders, skip_corrupt=True), seed=0)


def test_a_format_that_cannot_be_read_is_not_passed_over(folders):
    Image.new("RGB", (24, 20)).save(folders / "train" / "red" / "new.webp")
    with pytest.raises(TfqatError, match=r"new\.webp: format not supported"):
        load(spec(folders), seed=0)


def test_empty_class_folder(folders):
    for part in ("train", "val"):
        (folders / part / "green").mkdir()
    with pytest.raises(TfqatError, match=r"green' has no images"):
        load(spec(folders), seed=0)


def test_class_folders_must_match(folders):
    (folders / "val" / "green").mkdir()
    with pytest.raises(TfqatError, match=r"only in .*val: green"):
        load(spec(folders), seed=0)


def test_missing_and_empty_folders(folders):
    with pytest.raises(TfqatError, match=r"train_dir: no folder at"):
        load(spec(folders, train_dir=str(folders / "nowhere")), seed=0)
    (folders / "empty").mkdir()
    with pytest.raises(TfqatError, match=r"val_dir: .*no class folders"):
        load(spec(folders, val_dir=str(folders / "empty")), seed=0)


def test_more_folders_than_classes(folders):
    with pytest.raises(TfqatError, match=r"2 class folders \(blue, red\).*model has 1 classes.*num_classes to 2"):
        load(spec(folders), seed=0, num_classes=1)


def test_fewer_folders_than_classes(folders):
    with pytest.raises(TfqatError, match="model has 3 classes"):
        load(spec(folders), seed=0, num_classes=3)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\ncut", b"\xff\xd8\xff\xe0cut"])
def test_the_reason_of_a_corrupt_image_is_told_without_tensorflow_s_names(folders, content):
    (folders / "train" / "red" / "broken.png").write_bytes(content)
    with pytest.raises(TfqatError, match=r"broken\.png: [A-Za-z]") as raised:
        load(spec(folders), seed=0)
    assert not any(word in str(raised.value) for word in ("{{", "[Op", "device"))


def test_what_is_held_out_without_a_look_at_the_training_images(folders):
    dataset = spec(folders, augment=Augment(flip=True, crop=True))
    data = load(dataset, seed=0)
    for file in (folders / "train").rglob("*.png"):
        file.write_bytes(b"no image")
    found = held_out(dataset, seed=0, num_classes=2)
    for one, other in zip(arrays(found.validation), arrays(data.validation), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (found.num_classes, found.input_shape, found.class_names) == (2, (20, 24, 3), ("blue", "red"))
    with pytest.raises(TfqatError, match="but the model has 3 classes"):
        held_out(dataset, seed=0, num_classes=3)
    (folders / "val/red/1.png").write_bytes(b"no image")
    with pytest.raises(TfqatError, match="1 image cannot be decoded"):
        held_out(dataset, seed=0)
    (folders / "val/green").mkdir()
    with pytest.raises(TfqatError, match=r"only in .*val: green"):
        held_out(dataset, seed=0)
