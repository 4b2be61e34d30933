"""A tiny detector goes the whole way by the jobs: train, export, verify, evaluate each file, look at images.

Four classes, so that the two raw outputs have one shape and could be taken for each other.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image, ImageDraw

from tfqat.jobs import quantize
from tfqat.jobs import train as training_job
from tfqat.jobs.evaluate import evaluate
from tfqat.jobs.export import export_spec
from tfqat.jobs.inference import inference
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.models.load import load_model
from tfqat.spec.schema import Spec
from tfqat.training import loop
from tfqat.training.stages import read_stages

COLORS = {"blue": (20, 30, 220), "green": (10, 200, 40), "red": (230, 25, 15), "white": (250, 250, 250)}
MODULE = "users_of_the_way"


def backbone(input_shape):
    """A convolution a stride, and one more at the strides that are features."""
    x = image = keras.Input(input_shape, name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale")(x)
    for number, width in enumerate((8, 12, 16, 24, 24), 1):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"bn{number}")(x)
        x = layers.ReLU(6, name=f"act{number}")(x)
    return keras.Model(image, x, name="tiny")


def users_module():
    module = ModuleType(MODULE)
    module.backbone = backbone
    return module


def write_voc(root):
    """Six images of 128 x 96 pixels with two or three rectangles each."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(6):
        image = Image.fromarray(random.integers(70, 110, (96, 128, 3)).astype(np.uint8))
        pen, objects = ImageDraw.Draw(image), []
        for place in range(2 + number % 2):
            label = list(COLORS)[(number + place) % 4]
            left, top = 4 + 42 * place + int(random.integers(6)), 6 + int(random.integers(40))
            right, bottom = left + 28 + int(random.integers(8)), top + 26 + int(random.integers(16))
            pen.rectangle((left, top, right - 1, bottom - 1), fill=COLORS[label])
            corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
            objects.append(f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>")
        image.save(root / "JPEGImages" / f"{number}.png")
        text = f"<annotation><filename>{number}.png</filename>{''.join(objects)}</annotation>"
        (root / "Annotations" / f"{number}.xml").write_text(text)
    (root / "ImageSets/Main/all.txt").write_text("".join(f"{number}\n" for number in range(6)))
    return root


def make_spec(root, results, augment=None, **training):
    usual = {"optimizer": {"name": "adam", "learning_rate": 0.01, "clip_norm": 5.0}, "qat_learning_rate": 0.002}
    return Spec.model_validate(
        {
            "results_dir": str(results),
            "random_seed": 3,
            "dataset_config": {
                "kind": "voc",
                "path": str(root),
                "train_split": "all",
                "val_split": "all",
                "image_size": 128,
                "batch_size": 2,
                "augment": augment or {},
            },
            "model_config": {
                "architecture": "efficientdet_d0",
                "num_classes": 4,
                "options": {
                    "backbone": f"{MODULE}:backbone",
                    "activation": "relu6",
                    "width": 16,
                    "depth": 1,
                    "head_depth": 1,
                    "batch_norm_momentum": 0.9,
                },
            },
            "training_config": usual | training,
            "quantization_config": {"calibration": {"method": "minmax", "batches": 3}},
            "export_config": {"formats": ["tensorrt"], "detections": "nms"},
        }
    )


@pytest.fixture(scope="module")
def patched():
    """The user's module, and seeds without deterministic ops, which could not be switched off again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, MODULE, users_module())
        for job in (quantize, training_job):
            patch.setattr(job, "make_deterministic", keras.utils.set_random_seed)
        yield patch


@dataclass(frozen=True)
class Way:
    spec: Spec
    root: Path
    results: Path
    report: object


@pytest.fixture(scope="module")
def way(patched, tmp_path_factory):
    folder = tmp_path_factory.mktemp("way")
    root, results = write_voc(folder / "voc"), folder / "results"
    spec = make_spec(root, results, float_epochs=30, num_epochs=2)
    train(spec)
    export_spec(spec)
    return Way(spec, root, results, verify_spec(spec))


def score_of(way, name):
    return next(stage.score for stage in read_stages(way.results / "stages.json") if stage.name == name)


def test_it_learns_in_float_and_keeps_it_in_int8(way):
    assert score_of(way, "float") > 0.9
    assert score_of(way, "QAT") > 0.9


def test_metrics_have_what_a_detector_has(way):
    with (way.results / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    names = {"val_loss", "val_AP50", "val_AP", "val_class_logits_loss", "val_box_regression_loss", "loss"}
    assert names <= set(rows[0])
    assert float(rows[29]["val_loss"]) < float(rows[0]["val_loss"]) / 3
    told = json.loads((way.results / "status.jsonl").read_text().splitlines()[-1])
    assert told["status"] == "SUCCESS"


def test_every_convolution_but_the_last_is_in_int8(way):
    rows = load_model(way.results / "qat.keras").placement.rows
    floats = {row.op for row in rows if row.macs and row.state == "float"}
    assert floats
    assert all("class_last" in name or "box_last" in name for name in floats)


def test_verify_has_a_row_for_each_file(way):
    assert way.report.figure == "AP50"
    assert way.report.passed, way.report
    rows = {stage.name: stage for stage in read_stages(way.results / "stages.json")}
    for name in files_of(way):
        if "nms" in name:
            assert rows[name].score == pytest.approx(way.report.trained.measured, abs=0.01)
    for row in way.report.rows:
        assert row.measured == pytest.approx(way.report.trained.measured, abs=0.005)
    assert way.report.trained.measured == pytest.approx(score_of(way, "QAT"), abs=1e-6)


def files_of(way):
    return sorted(path.name for path in (way.results / "export").iterdir() if path.suffix == ".onnx")


def test_evaluate_gives_what_training_said(way, capsys):
    found = evaluate(way.spec)
    assert (found.name, found.figure) == ("qat.keras", "AP50")
    assert found.score == pytest.approx(score_of(way, "QAT"), abs=1e-6)
    told = json.loads((way.results / "evaluation" / "qat.keras.json").read_text())
    assert (told["images"], told["boxes"], told["AP50"]) == (6, 15, found.score)
    assert [row["class"] for row in told["classes"]] == sorted(COLORS)
    assert "average precision" in capsys.readouterr().out


def test_each_exported_file_has_the_trained_models_ap(way):
    folder = way.results / "export"
    raw, finished = ["model.onnx", "model.qdq.onnx"], ["model.efficientnms.onnx", "model.qdq.efficientnms.onnx"]
    assert files_of(way) == sorted([*raw, *finished, "model.qdq.nms.onnx"])
    expected = score_of(way, "QAT")
    for name in files_of(way):
        quantized = "qdq" in name
        cache = None if quantized else folder / "model.cache"
        found = evaluate(way.spec, folder / name, cache, None if quantized else folder / "layer_precisions.txt", "-")
        assert found.score == pytest.approx(expected, abs=0.01), name


def test_boxes_of_images_from_the_trained_model_and_from_a_file(way, tmp_path):
    images, found = way.root / "JPEGImages", {}
    for name in ("qat.keras", "model.qdq.onnx", "model.qdq.nms.onnx"):
        file = way.results / name if name.endswith("keras") else way.results / "export" / name
        inference(way.spec, images, tmp_path / name, file, draw=True)
        with (tmp_path / name / "result.csv").open() as table:
            found[name] = list(csv.reader(table))
        assert len(list((tmp_path / name / "images").iterdir())) == 6
    # Each rectangle is among what was found, in the image's own pixels (128 x 96).
    for number in range(6):
        text = (way.root / "Annotations" / f"{number}.xml").read_text()
        for part in text.split("<object>")[1:]:
            label = part.split("<name>")[1].split("<")[0]
            box = [float(part.split(f"<{side}>")[1].split("<")[0]) for side in ("xmin", "ymin", "xmax", "ymax")]
            for name, rows in found.items():
                near = [
                    row for row in rows
                    if row[0].endswith(f"{number}.png") and row[1] == label
                    and np.abs(np.array(row[3:], float) - box).max() < 9
                ]  # fmt: skip
                assert near, (name, number, label, box)


def variables(path):
    """The variables in a `.keras` file, by their names there."""
    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


class BrokenOff(Exception):
    """As if the machine had gone down."""


def test_a_run_that_breaks_off_ends_where_the_unbroken_one_does(patched, tmp_path, monkeypatch):
    root = write_voc(tmp_path / "voc")
    augment = {"flip": True, "scale": [0.8, 1.2], "color": 0.1}
    spec = make_spec(root, tmp_path / "results", augment, enable_qat=False, float_epochs=2, l2=1e-4)
    train(spec)
    unbroken = shutil.copytree(tmp_path / "results", tmp_path / "unbroken")
    save = loop.save_checkpoint

    def save_and_break(model, results, phase, epoch):
        save(model, results, phase, epoch)
        if epoch == 1:
            raise BrokenOff

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_break)
        with pytest.raises(BrokenOff):
            train(spec, restart=True)
    assert not (tmp_path / "results" / "float.keras").exists()
    train(spec)
    expected, found = (variables(folder / "float.keras") for folder in (unbroken, tmp_path / "results"))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert (tmp_path / "results" / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()
