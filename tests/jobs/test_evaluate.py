"""Evaluating files: each kind gives the numbers of its own runtime; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import TensorProto, helper, numpy_helper

import tfqat
from tfqat import data as datasets
from tfqat.errors import TfqatError
from tfqat.jobs.evaluate import evaluate
from tfqat.spec.schema import Spec

MODULE = "nets_of_the_evaluation"


def net(input_shape=(8, 8, 1), num_classes=10):
    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.Conv2D(8, 3, activation="relu", name="conv2")(x)
    return keras.Model(image, layers.Dense(num_classes, activation="softmax", name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A spec whose results folder holds a trained model and its export, and the validation data as arrays."""
    folder = tmp_path_factory.mktemp("results")
    spec = Spec.model_validate(
        {
            "results_dir": str(folder),
            "dataset_config": {"kind": "digits", "image_size": 8, "batch_size": 250},
            "model_config": {"python": f"{MODULE}:net", "num_classes": 10},
        }
    )
    keras.utils.set_random_seed(0)
    data = datasets.load(spec.dataset, 0)
    model = tfqat.prepare(net())
    tfqat.calibrate(model, data.calibration, method="minmax", batches=1)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.train(0), verbose=0)
    model.save(folder / "qat.keras")
    tfqat.export(model, folder / "export")
    images, labels = (np.concatenate(parts) for parts in zip(*data.validation.as_numpy_iterator(), strict=True))
    return spec, images, labels


@pytest.fixture
def spec(made, monkeypatch):
    module = ModuleType(MODULE)
    module.net = net
    monkeypatch.setitem(sys.modules, MODULE, module)
    return made[0]


@pytest.fixture
def export(made, tmp_path):
    """A copy of the export."""
    return shutil.copytree(f"{made[0].results_dir}/export", tmp_path / "export")


def scores_of(path, images):
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_the_trained_model(spec, made, capsys):
    found = evaluate(spec)
    _, images, labels = made
    model = tfqat.load_model(f"{spec.results_dir}/qat.keras")
    expected = keras.ops.convert_to_numpy(model(images))
    assert found.score == pytest.approx(np.mean(expected.argmax(1) == labels))
    assert found.result.metrics.loss == pytest.approx(
        float(keras.losses.SparseCategoricalCrossentropy()(labels, expected)), rel=1e-4
    )
    printed = capsys.readouterr().out
    assert f"{found.score:.2%}" in printed
    assert "Confusion matrix" in printed
    written = Path(printed.split("Written to ")[1].strip())
    assert json.loads(written.read_text())["top1"] == found.score


@pytest.mark.parametrize("name", ["model.onnx", "model.qdq.onnx"])
def test_an_onnx_file(name, spec, made, export, tmp_path):
    _, images, labels = made
    found = evaluate(spec, export / name, json_path=str(tmp_path / "numbers.json"))
    scores = scores_of(export / name, images)
    assert found.run_by == "onnxruntime"
    assert found.score == pytest.approx(np.mean(scores.argmax(1) == labels), abs=2 / len(labels))
    told = json.loads((tmp_path / "numbers.json").read_text())
    assert told["model"] == name
    assert told["top5"] == found.result.metrics.top5
    assert (
        np.sum(told["confusion_matrix"]) == told["images"] == len(labels) == sum(c["support"] for c in told["classes"])
    )
    assert np.trace(told["confusion_matrix"]) / len(labels) == pytest.approx(told["top1"])
    assert [c["class"] for c in told["classes"]] == [str(digit) for digit in range(10)]


def test_a_cache_changes_what_the_float_file_computes(spec, export):
    plain = evaluate(spec, export / "model.onnx", json_path="-")
    cached = evaluate(spec, export / "model.onnx", export / "model.cache", json_path="-")
    kept = evaluate(spec, export / "model.onnx", export / "model.cache", export / "layer_precisions.txt", "-")
    qdq = evaluate(spec, export / "model.qdq.onnx", json_path="-")
    assert cached.result.metrics.loss != plain.result.metrics.loss
    assert kept.result.metrics.loss == pytest.approx(qdq.result.metrics.loss, abs=1e-4)
    assert kept.name == "model.onnx + model.cache + layer_precisions.txt"


def test_json_alone_on_standard_output(spec, export, capsys):
    evaluate(spec, export / "model.qdq.onnx", json_path="-")
    assert json.loads(capsys.readouterr().out)["run_by"] == "onnxruntime"


def test_a_file_of_a_fixed_batch(spec, export):
    free = evaluate(spec, export / "model.onnx", json_path="-")
    model = onnx.load(export / "model.onnx")
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 64
    onnx.save(model, export / "fixed.onnx")
    fixed = evaluate(spec, export / "fixed.onnx", json_path="-")
    assert np.array_equal(fixed.result.metrics.confusion, free.result.metrics.confusion)


def test_a_float_keras_file(spec, tmp_path):
    keras.utils.set_random_seed(1)
    net().save(tmp_path / "float.keras")
    assert 0 < evaluate(spec, tmp_path / "float.keras", json_path="-").score < 0.5


def linear(shape, classes):
    """An ONNX that sums its image into the scores of some classes."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", *shape))
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", classes))
    weights = numpy_helper.from_array(np.ones((int(np.prod(shape)), classes), np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [image], [scores], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WRONG = {
    "kind": (lambda f: ((f / "model.cache"),), r"expected a file that ends in \.keras.*received '\.cache'"),
    "missing": (lambda f: ((f / "none.onnx"),), "there is no such file"),
    "missing_cache": (lambda f: (f / "model.onnx", f / "none.cache"), "none.cache: there is no such file"),
    "folder": (lambda f: (f / "folder.onnx",), "a folder, expected a file"),
    "cache_without_onnx": (lambda f: (f / "x.keras", f / "model.cache"), "cache belongs to a float ONNX"),
    "cache_beside_qdq": (lambda f: (f / "model.qdq.onnx", f / "model.cache"), "Q/DQ nodes of its own"),
    "precisions_without_cache": (lambda f: (f / "model.onnx", None, f / "layer_precisions.txt"), "belong to a cache"),
    "foreign_cache": (lambda f: (f / "linear.onnx", f / "model.cache"), "belongs to another model"),
    "channels_first": (lambda f: (f / "first.onnx",), r"channels first, \(1, 8, 8\); expected channels last"),
    "another_size": (lambda f: (f / "small.onnx",), r"images of shape \(6, 6, 1\), expected \(8, 8, 1\)"),
    "another_size_of_keras": (lambda f: (f / "small.keras",), r"images of shape \(6, 6, 1\), expected \(8, 8, 1\)"),
    "classes": (lambda f: (f / "seven.onnx",), r"outputs of shape \(7,\), expected \(10,\)"),
    "two_outputs": (lambda f: (f / "two.onnx",), "expected 1 input and 1 output, .* received 1 input and 2 outputs"),
    "cut_off": (lambda f: (f / "cut.onnx",), "not a whole ONNX model"),
    "no_keras_file": (lambda f: (f / "text.keras",), "not a .keras file"),
}


@pytest.mark.parametrize(("files", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(files, message, spec, export, capsys):
    (export / "folder.onnx").mkdir()
    (export / "text.keras").write_text("no model")
    (export / "cut.onnx").write_bytes((export / "model.onnx").read_bytes()[:1000])
    for name, shape, classes in (("linear", (8, 8, 1), 10), ("first", (1, 8, 8), 10), ("small", (6, 6, 1), 10),
                                 ("seven", (8, 8, 1), 7)):  # fmt: skip
        onnx.save(linear(shape, classes), export / f"{name}.onnx")
    two = linear((8, 8, 1), 10)
    two.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ("n", 64)))
    onnx.save(two, export / "two.onnx")
    net((6, 6, 1)).save(export / "small.keras")
    net().save(export / "x.keras")
    with pytest.raises(TfqatError, match=message):
        evaluate(spec, *files(export), json_path=str(export / "out.json"))
    assert not (export / "out.json").exists()
    assert capsys.readouterr().out == ""


def test_a_tflite_file(spec, made, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    _, images, labels = made
    keras.utils.set_random_seed(2)
    model = tfqat.prepare(net(), target="tflite")
    tfqat.calibrate(model, images[:100], method="minmax")
    path = tfqat.export(model, tmp_path / "out")["tflite"]
    found = evaluate(spec, path, json_path="-")
    interpreter = Interpreter(model_path=str(path))
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    scale, zero = taken["quantization"]
    interpreter.set_tensor(taken["index"], np.clip(np.rint(images / scale) + zero, -128, 127).astype(np.int8))
    interpreter.invoke()
    assert found.run_by == "LiteRT"
    assert found.score == pytest.approx(np.mean(interpreter.get_tensor(given["index"]).argmax(1) == labels))
    (tmp_path / "text.tflite").write_text("no model at all")
    with pytest.raises(TfqatError, match="no TFLite file"):
        evaluate(spec, tmp_path / "text.tflite", json_path="-")
