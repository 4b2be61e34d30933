"""Inference: labels and boxes of image files, against Keras, onnxruntime and numpy; what cannot be read is named."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers
from PIL import Image, ImageDraw

import tfqat
from tfqat import data as datasets
from tfqat.data import image_files
from tfqat.detection.nms import suppress
from tfqat.errors import TfqatError
from tfqat.jobs.inference import inference
from tfqat.spec.schema import Spec

SIDE = 16
COLORS = {"blue": (20, 30, 220), "green": (10, 200, 40), "red": (230, 25, 15)}


def picture(color, seed, size=(SIDE, SIDE)):
    noise = np.random.default_rng(seed).integers(-30, 30, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8))


def classifier():
    """Its scores follow the mean colour."""
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    x = layers.Conv2D(6, 3, activation="relu", name="conv2")(x)
    scores = layers.Dense(3, activation="softmax", name="head")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(image, scores)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A spec of three colours, a folder of images in folders, and a trained and exported model."""
    root = tmp_path_factory.mktemp("labeled")
    for part in ("train", "val"):
        for name, color in COLORS.items():
            (root / part / name).mkdir(parents=True)
            for seed in range(6):
                picture(color, seed).save(root / part / name / f"{seed}.png")
    photos = root / "photos"
    (photos / "more" / "deep").mkdir(parents=True)
    picture(COLORS["red"], 50).save(photos / "b.png")
    picture(COLORS["green"], 51).save(photos / "more" / "a.PNG")
    picture(COLORS["blue"], 52).save(photos / "more" / "deep" / "c, d.bmp")
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_text("no image")
    spec = Spec.model_validate(
        {
            "results_dir": str(root / "results"),
            "dataset_config": {
                "kind": "image_folder",
                "train_dir": str(root / "train"),
                "val_dir": str(root / "val"),
                "image_size": SIDE,
                "batch_size": 6,
            },
            "model_config": {"python": "none:none", "num_classes": 3},
        }
    )
    keras.utils.set_random_seed(1)
    data = datasets.load(spec.dataset, 0, 3)
    model = tfqat.prepare(classifier())
    tfqat.calibrate(model, data.calibration, method="minmax", batches=2)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", jit_compile=False)
    for epoch in range(40):
        model.fit(data.train(epoch), verbose=0)
    (root / "results").mkdir()
    model.save(root / "results" / "qat.keras")
    tfqat.export(model, root / "export")
    return spec.model_copy(update={"model": spec.model.model_copy(update={"python": None})}), photos, root / "export"


FILES = ("b.png", "more/a.PNG", "more/deep/c, d.bmp")


def pixels(photos):
    return np.stack([np.asarray(Image.open(photos / name), np.float32) / 127.5 - 1 for name in FILES])


def rows_of(folder):
    with (folder / "result.csv").open(newline="") as file:
        return list(csv.reader(file))


def check_labels(folder, photos, scores):
    """Both files against scores ``(images, classes)``."""
    expected = [(str(photos / name), sorted(COLORS)[row.argmax()]) for name, row in zip(FILES, scores, strict=True)]
    rows = rows_of(folder)
    assert [tuple(row[:2]) for row in rows] == expected
    np.testing.assert_allclose([float(row[2]) for row in rows], scores.max(1), atol=1e-5)
    told = json.loads((folder / "result.json").read_text())
    assert [(entry["path"], entry["label"]) for entry in told["images"]] == expected
    for entry, row in zip(told["images"], scores, strict=True):
        assert list(entry["probabilities"]) == sorted(COLORS)
        np.testing.assert_allclose(list(entry["probabilities"].values()), row, atol=1e-5)
    return told


def test_labels_of_the_trained_model(labeled, capsys):
    spec, photos, _ = labeled
    folder = inference(spec, photos)
    assert folder == Path(spec.results_dir) / "inference"
    scores = np.asarray(tfqat.load_model(f"{spec.results_dir}/qat.keras")(pixels(photos)))
    told = check_labels(folder, photos, scores)
    assert (told["model"], told["run_by"]) == ("qat.keras", "Keras")
    assert [entry["label"] for entry in told["images"]] == ["red", "green", "blue"], "it has learnt the colours"
    assert "on 3 images" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["result.csv", "result.json"]


def test_labels_of_an_exported_file(labeled, tmp_path):
    spec, photos, export = labeled
    inference(spec, photos, tmp_path / "out", export / "model.qdq.onnx")
    session = onnxruntime.InferenceSession(str(export / "model.qdq.onnx"))
    scores = session.run(None, {session.get_inputs()[0].name: pixels(photos)})[0]
    told = check_labels(tmp_path / "out", photos, scores)
    assert (told["model"], told["run_by"]) == ("model.qdq.onnx", "onnxruntime")


def test_a_float_file_with_its_cache(labeled, tmp_path):
    spec, photos, export = labeled
    given = (export / "model.onnx", export / "model.cache", export / "layer_precisions.txt")
    inference(spec, photos, tmp_path / "cached", *given)
    inference(spec, photos, tmp_path / "qdq", export / "model.qdq.onnx")
    for one, other in zip(rows_of(tmp_path / "cached"), rows_of(tmp_path / "qdq"), strict=True):
        assert one[:2] == other[:2]
        assert float(one[2]) == pytest.approx(float(other[2]), abs=1e-3)


def test_one_image_and_its_drawing(labeled, tmp_path):
    spec, photos, _ = labeled
    file = photos / "more" / "deep" / "c, d.bmp"
    inference(spec, file, tmp_path / "out", draw=True)
    assert [row[0] for row in rows_of(tmp_path / "out")] == [str(file)]
    with Image.open(tmp_path / "out" / "images" / "c, d.bmp") as drawn:
        assert drawn.size == (SIDE, SIDE)


def test_drawings_lie_as_the_images_do(labeled, tmp_path):
    spec, photos, _ = labeled
    inference(spec, photos, tmp_path / "out", draw=True)
    images = tmp_path / "out" / "images"
    found = sorted(str(path.relative_to(images)) for path in images.rglob("*") if path.is_file())
    assert found == ["b.png", "more/a.PNG", "more/deep/c, d.bmp"]


def test_a_drawing_shows_the_pixels_that_the_model_was_given(labeled, tmp_path):
    """16 bits a pixel; a name without an ending; and a photo that its EXIF entry would turn."""
    spec, _, _ = labeled
    gray = np.random.default_rng(3).integers(0, 256, (60, 80)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "photos" / "deep.png")
    Image.fromarray(gray).save(tmp_path / "photos" / "no ending", "PNG")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(gray).save(tmp_path / "photos" / "turned.png", exif=turned)
    for name in ("deep.png", "no ending", "turned.png"):
        inference(spec, tmp_path / "photos" / name, tmp_path / "out", draw=True)
        with Image.open(tmp_path / "out" / "images" / name) as drawn:
            assert (drawn.mode, drawn.format) == ("RGB", "PNG")
            below = np.asarray(drawn)[-20:, -20:]
        expected = np.repeat(gray[-20:, -20:, None], 3, 2)
        assert (below == expected).mean() > 0.9, "but for the label"


def test_images_that_cannot_be_decoded_are_named_and_nothing_is_written(labeled, tmp_path):
    spec, photos, _ = labeled
    folder = tmp_path / "in"
    folder.mkdir()
    whole = (photos / "b.png").read_bytes()
    (folder / "good.png").write_bytes(whole)
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "other.webp").write_bytes(whole)
    with pytest.raises(TfqatError, match="3 images cannot be decoded") as caught:
        inference(spec, folder, tmp_path / "out")
    for name in ("cut.png", "text.jpg", "other.webp: format not supported"):
        assert name in str(caught.value)
    assert "good.png" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_and_nothing_is_written(labeled, tmp_path):
    spec, photos, _ = labeled
    (tmp_path / "empty").mkdir()
    cases = {
        "--threshold is for boxes": (spec, photos, {"threshold": 0.5}),
        "none: there is no such file or folder": (spec, tmp_path / "none", {}),
        "has no images": (spec, tmp_path / "empty", {}),
        "there is no such file": (spec, photos, {"model": tmp_path / "none.onnx"}),
    }
    for message, (given, images, options) in cases.items():
        with pytest.raises(TfqatError, match=message):
            inference(given, images, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


OTHERS = {
    "digits": {"kind": "digits", "image_size": 16},
    "npz": {"kind": "npz", "path": "a.npz"},
    "python": {"kind": "python", "function": "a:b"},
}


@pytest.mark.parametrize("section", OTHERS.values(), ids=OTHERS)
def test_data_without_image_files(labeled, tmp_path, section):
    _, photos, _ = labeled
    spec = Spec.model_validate(
        {"results_dir": str(tmp_path), "dataset_config": section, "model_config": {"checkpoint": "a.keras"}}
    )
    kind = section["kind"]
    with pytest.raises(TfqatError, match=f"kind {kind}: nothing says how .* one of image_folder, voc, coco, tfrecord"):
        inference(spec, photos)


@pytest.fixture(scope="module")
def scenes():
    place = Path(__file__).parents[1] / "tasks" / "scenes.py"
    spec = importlib.util.spec_from_file_location("scenes", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = ("cat", "dog", "owl")
SIZES = {"wide.png": (256, 200), "tall.png": (60, 128), "exact.png": (128, 128)}


@pytest.fixture(scope="module")
def boxed(tmp_path_factory, scenes):
    """A spec of a detector that nothing has trained, its file, and photos of several sizes."""
    root = tmp_path_factory.mktemp("boxed")
    photos = root / "photos"
    photos.mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        image = picture((120, 130, 100), seed, size)
        pen = ImageDraw.Draw(image)
        for corner in range(3):
            x, y = 10 + 17 * corner, 8 + 31 * corner
            pen.rectangle((x, y, x + 25, y + 20), fill=tuple(COLORS.values())[corner])
        image.save(photos / name)
    spec = Spec.model_validate(
        {
            "results_dir": str(root / "results"),
            "dataset_config": {"kind": "voc", "path": str(root / "none"), "image_size": 128, "classes": list(NAMES)},
            "model_config": {"architecture": "efficientdet_d0", "num_classes": 3},
            "detection_config": {"max_detections": 8, "iou_threshold": 0.4},
        }
    )
    model = scenes.detector()
    bias = model.get_layer("class_last").bias
    bias.assign(bias + 2.5)  # scores on both sides of 0.3
    model.save(root / "float.keras")
    return spec, photos, root / "float.keras"


def decoded(spec, scenes, model, file, threshold):
    """By numpy, of what Keras gives: rows of a CSV."""
    one = image_files.read(file, datasets.preparer(spec.dataset))
    given = model(np.asarray(one.image)[None], training=False)
    boxes = scenes.box_of(np.asarray(given["box_regression"])[0], scenes.ANCHORS)
    scores = 1 / (1 + np.exp(-np.asarray(given["class_logits"], np.float64)[0]))
    found = suppress(boxes, scores, 0.4, threshold, 8)
    width, height = SIZES[file.name]
    # The aspect ratio is kept, so that the longer side decides.
    own = np.clip(found.boxes * max(width, height) / 128, 0, [height, width, height, width])
    return [
        (str(file), NAMES[label], score, *box[[1, 0, 3, 2]])
        for box, score, label in zip(own, found.scores, found.classes, strict=True)
    ]


@pytest.mark.parametrize("threshold", [None, 0.02])
def test_boxes_in_the_images_own_pixels(boxed, scenes, tmp_path, threshold):
    spec, photos, file = boxed
    folder = inference(spec, photos, tmp_path / "out", file, threshold=threshold)
    model = keras.models.load_model(file)
    files = sorted(photos.iterdir())
    lowest = 0.3 if threshold is None else threshold
    expected = [row for photo in files for row in decoded(spec, scenes, model, photo, lowest)]
    assert len(expected) > 6
    found = rows_of(folder)
    assert [tuple(row[:2]) for row in found] == [row[:2] for row in expected]
    numbers = [[float(value) for value in row[2:]] for row in found]
    np.testing.assert_allclose([row[0] for row in numbers], [row[2] for row in expected], atol=1e-4)
    np.testing.assert_allclose([row[1:] for row in numbers], [row[3:] for row in expected], atol=0.02)
    told = json.loads((folder / "result.json").read_text())
    assert [entry["path"] for entry in told["images"]] == [str(photo) for photo in files]
    objects = [one for entry in told["images"] for one in entry["objects"]]
    keys = ["label", "confidence", "xmin", "ymin", "xmax", "ymax"]
    assert [[str(one[key]) for key in keys] for one in objects] == [row[1:] for row in found]


def test_boxes_are_drawn_where_they_are(boxed, tmp_path):
    spec, photos, file = boxed
    inference(spec, photos, tmp_path / "out", file, draw=True)
    rows = rows_of(tmp_path / "out")
    for name, size in SIZES.items():
        drawn, plain = np.asarray(Image.open(tmp_path / "out" / "images" / name)), np.asarray(Image.open(photos / name))
        assert drawn.shape == plain.shape == (size[1], size[0], 3)
        changed = (drawn != plain).any(2)
        for _, _, _, *box in (row for row in rows if row[0] == str(photos / name)):
            left, top, right, bottom = (min(int(float(v)), limit - 1) for v, limit in zip(box, size * 2, strict=True))
            middle = (top + bottom) // 2
            assert changed[middle, left : left + 2].any(), "the left side has a line"
            assert changed[middle, right - 1 : right + 1].any(), "the right side has a line"
            assert changed[bottom - 1 : bottom + 1, (left + right) // 2].any(), "the lower side has a line"
        assert not changed.all()
    assert rows


def test_a_classifiers_file_for_a_detector(boxed, labeled, tmp_path):
    spec, photos, _ = boxed
    with pytest.raises(TfqatError, match=r"qat\.keras: expected 1 input and 2 outputs"):
        inference(spec, photos, tmp_path / "out", Path(labeled[0].results_dir) / "qat.keras")
    assert not (tmp_path / "out").exists()
