"""`tfqat analyze` on a spec: the trained model on its validation images, tables, and a report in the results folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat import data as datasets
from tfqat.errors import TfqatError
from tfqat.jobs import quantize as quantize_job
from tfqat.jobs import train as train_job
from tfqat.jobs.analyze import analyze_spec
from tfqat.jobs.recommend import write_spec
from tfqat.spec.schema import Spec

MODULE = "nets_of_the_analysis"


def net(input_shape, num_classes):
    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(x)))


def deep(input_shape, num_classes):
    image = x = keras.Input(input_shape, name="image")
    for name in ("first", "conv", "last"):
        x = layers.ReLU(name=f"{name}_relu")(layers.Conv2D(8, 3, padding="same", name=name)(x))
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(x)))


def spec_of(folder, **training) -> Spec:
    return Spec.model_validate(
        {
            "results_dir": str(folder),
            "dataset_config": {"kind": "digits", "image_size": 8, "batch_size": 100},
            "model_config": {"python": f"{MODULE}:net", "num_classes": 10},
            "training_config": training,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A spec whose results folder holds a trained model, and that model."""
    spec = spec_of(tmp_path_factory.mktemp("results"))
    keras.utils.set_random_seed(0)
    data = datasets.load(spec.dataset, 0)
    model = tfqat.prepare(net((8, 8, 1), 10))
    tfqat.calibrate(model, data.calibration, method="minmax", batches=1)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.train(0), verbose=0)
    model.save(f"{spec.results_dir}/qat.keras")
    return spec, model, data


@pytest.fixture(autouse=True)
def user_module(monkeypatch):
    module = ModuleType(MODULE)
    module.net, module.deep = net, deep
    monkeypatch.setitem(sys.modules, MODULE, module)


def test_the_trained_model_on_its_validation_images(trained, tmp_path, capsys):
    spec, model, data = trained
    analyze_spec(spec, 150, output=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    images, labels = (np.concatenate(parts)[:150] for parts in zip(*data.validation.as_numpy_iterator(), strict=True))
    right = model.predict(images, verbose=0).argmax(-1) == labels
    assert document["samples"] == 150
    assert document["forms"]["quantized"]["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
    printed = capsys.readouterr().out
    assert "conv" in printed
    assert str(tmp_path / "out" / "report.json") in printed.replace("\n", "")


def test_without_a_folder_it_is_the_results_folders(trained, capsys):
    found = analyze_spec(trained[0], 10_000)
    assert (trained[2].validation.cardinality().numpy() - 1) * 100 < found.samples < 10_000
    assert json.loads(Path(trained[0].results_dir, "analysis", "report.json").read_text())["asked"] == 10_000
    assert f"for tensorrt, {found.samples} samples (of at most 10000)" in " ".join(capsys.readouterr().out.split())


def test_what_the_budget_does_not_reach_is_said(trained, tmp_path, capsys):
    analyze_spec(trained[0], 20, budget=1e-6, output=tmp_path)
    assert "Not measured within 1e-06 s: 2 of 2 blocks (" in " ".join(capsys.readouterr().out.split())


def test_mixed_precision_for_a_detector_is_refused_before_anything_is_read(tmp_path):
    spec = Spec.model_validate(
        {
            "results_dir": str(tmp_path / "none"),
            "dataset_config": {"kind": "voc", "path": str(tmp_path / "nowhere")},
            "model_config": {"architecture": "efficientdet_d0", "num_classes": 2},
        }
    )
    with pytest.raises(TfqatError, match=r"--recommend chooses mixed precision by accuracy.*judged by AP50"):
        analyze_spec(spec, 10, wish=(0.5, None))


def test_nothing_is_trained_yet(tmp_path):
    with pytest.raises(TfqatError, match=r"No trained model.*Run `tfqat train`"):
        analyze_spec(spec_of(tmp_path / "none"), 10)
    assert not (tmp_path / "none").exists()


def test_a_spec_that_trains_in_float(tmp_path):
    with pytest.raises(TfqatError, match="nothing was quantized"):
        analyze_spec(spec_of(tmp_path, enable_qat=False), 10)


@pytest.fixture
def quantized(tmp_path, monkeypatch):
    """A spec with comments whose results folder holds a float model with a ruined kernel, and that file."""
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC_TEXT)
    spec = tfqat.load_spec("spec.yaml")
    train_job.train(tfqat.load_spec("spec.yaml", ["training_config.enable_qat=false", "results_dir=float"]))
    model = keras.models.load_model("float/float.keras")
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 3], bias[3] = 0, 0
    model.get_layer("first").set_weights([kernel, bias])
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[:, :, 3, :] = 200 * np.sign(kernel[:, :, 3, :])
    model.get_layer("conv").set_weights([kernel, bias])
    Path("results").mkdir()
    model.save("results/float.keras")
    quantize_job.quantize(spec)
    return spec, Path("spec.yaml")


def test_the_recommended_spec_keeps_comments_and_makes_what_was_measured(quantized, capsys):
    spec, source = quantized
    found = analyze_spec(spec, 10_000, wish=(2.0, None), source=source)
    front = found.front
    assert front.points[0].drop > 2
    assert front.best.floats == ("conv",)
    path = Path("results/analysis/recommended.yaml")
    text = path.read_text()
    assert "# the digits" in text
    assert "# mine" in text
    assert f"# {front.reasons[0]}" in text
    new = tfqat.load_spec(path)
    assert [rule.match for rule in new.quantization.rules] == ["conv", "conv_relu", "*"]
    assert new.results_dir == "results/recommended"
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    quantize_job.quantize(new)
    rows = {row["name"]: row["score"] for row in json.loads(Path("results/recommended/stages.json").read_text())}
    assert rows["PTQ (calibrated only)"] == pytest.approx(front.best.accuracy, abs=1e-6)
    assert rows["float"] == pytest.approx(front.float_accuracy, abs=1e-6)
    report = json.loads(Path("results/analysis/report.json").read_text())["front"]
    write_spec(spec, source, front, Path("again"))  # the folder has a run by now
    assert tfqat.load_spec("again/recommended.yaml").results_dir == "results/recommended_2"
    assert report["rules"] == [dict(rule) for rule in front.rules]
    assert report["points"][report["chosen"]]["floats"] == ["conv"]
    assert front.sentence in Path("results/analysis/report.html").read_text()


def test_of_a_trained_model_it_is_said_what_training_gave(quantized):
    spec, source = quantized
    train_job.train(spec)
    found = analyze_spec(spec, 10_000, wish=(2.0, None), source=source)
    drop = 100 * (found.front.float_accuracy - found.forms["quantized"].accuracy)
    assert any(f"{abs(drop):.2f} points {'above' if drop < 0 else 'below'} float" in note for note in found.notes)
    # What was trained on is not what is recommended from: the float model is.
    assert found.front.points[0].drop > 2
    assert found.front.best.floats == ("conv",)


def test_no_mixed_precision_keeps_the_bound(quantized, capsys):
    spec, source = quantized
    spec = spec.model_copy(update={"export": spec.export.model_copy(update={"formats": ("tflite",)})})
    tflite = spec.model_copy(
        update={
            "results_dir": "lite",
            "quantization": spec.quantization.model_copy(update={"target": "tflite"}),
        }
    )
    Path("lite").mkdir()
    Path("lite/float.keras").write_bytes(Path("results/float.keras").read_bytes())
    quantize_job.quantize(tflite)
    with pytest.raises(TfqatError, match="None of 1 models measured stays within 2 points"):
        analyze_spec(tflite, 300, wish=(2.0, None), source=source)
    assert json.loads(Path("lite/analysis/report.json").read_text())["front"]["chosen"] is None
    assert not Path("lite/analysis/recommended.yaml").exists()


SPEC_TEXT = f"""# the digits
results_dir: results   # where to
dataset_config: {{kind: digits, image_size: 8, batch_size: 100}}
model_config: {{python: "{MODULE}:deep", num_classes: 10}}
training_config: {{float_epochs: 4, optimizer: {{name: adam, learning_rate: 0.01}}}}
quantization_config:
  target: tensorrt
  rules:
    - {{match: "*", relu6: false}}  # mine
"""
