"""Arrays in a .npz file: scaling, channel axis, and every way in which a file can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tfqat.data import input_shape, load
from tfqat.errors import TfqatError
from tfqat.spec.datasets import Npz

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 5)).astype(np.uint8)
LABELS = np.arange(20) % 4


def spec(path, **arrays):
    given = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:8], "y_test": LABELS[:8]} | arrays
    np.savez(path / "data.npz", **{name: array for name, array in given.items() if array is not None})
    return Npz(kind="npz", path=str(path / "data.npz"), batch_size=4)


def arrays(dataset):
    images, labels = zip(*[(x.numpy(), y.numpy()) for x, y in dataset], strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_gray_uint8_images_get_a_channel_and_the_range_0_to_1(tmp_path):
    dataset = spec(tmp_path)
    images, labels = arrays(load(dataset, seed=0, num_classes=4).validation)
    np.testing.assert_allclose(images, IMAGES[:8, ..., None] / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(labels, LABELS[:8])
    assert input_shape(dataset) == (6, 5, 1)


def test_images_keep_their_labels_through_the_shuffle(tmp_path):
    images, labels = arrays(load(spec(tmp_path), seed=3).train(7))
    of_image = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    for image, label in zip(images, labels, strict=True):
        assert of_image[np.rint(image[..., 0] * 255).astype(np.uint8).tobytes()] == label


def test_floats_stay_and_scale_is_honored(tmp_path):
    floats = RNG.normal(size=(20, 6, 5, 3)).astype(np.float32)
    dataset = spec(tmp_path, x_train=floats, x_test=floats[:8])
    np.testing.assert_array_equal(arrays(load(dataset, seed=0).validation)[0], floats[:8])
    scaled = dataset.model_copy(update={"scale": 0.5})
    np.testing.assert_array_equal(arrays(load(scaled, seed=0).validation)[0], floats[:8] * 0.5)


def test_resizes(tmp_path):
    dataset = spec(tmp_path).model_copy(update={"image_size": (12, 10)})
    assert next(iter(load(dataset, seed=0).train(0)))[0].shape == (4, 12, 10, 1)
    assert input_shape(dataset) == (12, 10, 1)


def test_validation_fraction_holds_out_the_same_images_for_every_seed(tmp_path):
    dataset = spec(tmp_path).model_copy(update={"x_test": None, "y_test": None, "validation_fraction": 0.25})
    one, two = load(dataset, seed=0), load(dataset, seed=1)
    held = arrays(one.validation)[0]
    np.testing.assert_array_equal(held, arrays(two.validation)[0])
    assert len(held) == 5
    assert one.steps == 3
    calibrated = {image.tobytes() for image in arrays(one.calibration)[0]}
    assert len(calibrated) == 15
    assert not calibrated & {image.tobytes() for image in held}


WRONG = {
    "missing key": ({"y_test": None}, r"no array 'y_test'; it has: x_test, x_train, y_train"),
    "lengths differ": ({"y_train": LABELS[:-1]}, r"'x_train' has 20 images and 'y_train' has 19 labels"),
    "label out of range": ({"y_test": np.full(8, 4)}, r"validation labels.*expected 0 to 3, received 4"),
    "negative label": ({"y_train": LABELS - 1}, r"training labels.*5 of 20.*received -1"),
    "one-hot labels": ({"y_train": np.eye(4)[LABELS]}, r"integer class numbers.*float64 of shape \(20, 4\)"),
    "flat images": ({"x_train": IMAGES.reshape(20, 30)}, r"must hold images.*shape \(20, 30\)"),
    "pickled objects": ({"x_train": np.array([{}] * 20)}, r"'x_train' cannot be read"),
    "shapes differ": ({"x_test": IMAGES[:8, 1:]}, r"must have one shape, received \(6, 5, 1\) and \(5, 5, 1\)"),
    "label that int32 would turn into 1": (
        {"y_train": np.where(LABELS == 1, 2**32 + 1, LABELS).astype(np.uint64)},
        r"5 of 20.*received 4294967297",
    ),
    "types differ": ({"x_test": (IMAGES[:8] / 255).astype(np.float32)}, r"uint8 and .* float32.*dataset_config\.scale"),
    "wide integers": (
        {"x_train": IMAGES.astype(np.int64), "x_test": IMAGES[:8].astype(np.int64)},
        r"are int64 .*dataset_config\.scale",
    ),
    "empty": ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, r"expected the same number, at least one"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays(tmp_path, case):
    changed, message = WRONG[case]
    with pytest.raises(TfqatError, match=message):
        load(spec(tmp_path, **changed), seed=0, num_classes=4)


def test_wide_integers_with_a_scale(tmp_path):
    dataset = spec(tmp_path, x_train=IMAGES.astype(np.int64)).model_copy(update={"scale": 1 / 255})
    images, _ = arrays(load(dataset, seed=0).calibration)
    assert images.max() == pytest.approx(IMAGES.max() / 255)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04cut", b"\x93NUMPY"])
def test_a_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(TfqatError, match=r"not a readable \.npz file"):
        load(Npz(kind="npz", path=str(tmp_path / "data.npz")), seed=0)


def test_a_cut_file(tmp_path):
    dataset = spec(tmp_path)
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TfqatError, match=r"not a readable \.npz file"):
        load(dataset, seed=0)


def test_no_file(tmp_path):
    with pytest.raises(TfqatError, match="no file at"):
        load(Npz(kind="npz", path=str(tmp_path / "none.npz")), seed=0)
