"""The README's "Add an accelerator": its file, dropped into targets/, is a target like any other."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

import tfqat
import tfqat.targets
from tfqat.jobs.targets import listed_targets
from tfqat.targets import load_target, target_names

FILE = Path(__file__).with_name("example_accelerator.py")


@pytest.fixture
def dropped_in(tmp_path, monkeypatch):
    """The file as ``npu_x.py`` in a folder that belongs to the package tfqat.targets."""
    shutil.copy(FILE, tmp_path / "npu_x.py")
    monkeypatch.setattr(tfqat.targets, "__path__", [*tfqat.targets.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield "npu_x"
    sys.modules.pop("tfqat.targets.npu_x", None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype("float32")


def net():
    x = inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(x)
    x = layers.ReLU(6.0, name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.MaxPooling2D(name="pool")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(x)
    x = layers.Flatten(name="flat")(layers.Multiply(name="scaled")([x, gate]))
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def test_it_is_short_enough():
    assert len(FILE.read_text().splitlines()) <= 60


def test_it_is_a_target_like_any_other(dropped_in):
    assert dropped_in in target_names()
    listed = next(row for row in listed_targets() if row.name == dropped_in)
    assert listed.text.startswith("NPU X")
    assert listed.formats == {"qdq_onnx": ("model.qdq.onnx",), "aimet": ("model.onnx", "model.encodings")}
    assert load_target(dropped_in).name == dropped_in


def test_it_places_as_it_says(dropped_in):
    plan = tfqat.placement(net(), target=dropped_in)
    assert list(plan.activations) == ["image", "relu", "gate", "gate/sigmoid", "scaled"]
    assert plan.fixed == {"gate/sigmoid": (0.0, 1.0)}
    assert plan.activations["relu"].signed is False
    assert plan.activations["image"].narrow
    assert set(plan.weights) == {"conv", "gate"}
    assert plan.float_ops == {"head": "output layer: outputs stay float"}


def test_onnxruntime_computes_what_was_trained(dropped_in, images, tmp_path):
    keras.utils.set_random_seed(0)
    model = tfqat.prepare(net(), target=dropped_in)
    tfqat.calibrate(model, images, method="minmax")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(images, np.arange(64) % 4, verbose=0)
    files = tfqat.export(model, tmp_path / "out", formats=["qdq_onnx", "aimet"])

    qdq = onnx.load(files["qdq_onnx"])
    stored = {tensor.name: tensor.data_type for tensor in qdq.graph.initializer}
    assert onnx.TensorProto.INT8 in stored.values()
    assert onnx.TensorProto.UINT8 in stored.values()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(files["qdq_onnx"], options)
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
    expected = keras.ops.convert_to_numpy(tfqat.finalize(model)(images))
    step = np.abs(expected).max() / 127
    assert np.mean(np.abs(found - expected) < 0.01 * step) > 0.95
    assert np.array_equal(found.argmax(1), expected.argmax(1))

    told = json.loads(files["aimet"].read_text())
    scales = {entry["name"]: entry for entry in told["activation_encodings"]}
    assert scales["gate/sigmoid"]["scale"] == [pytest.approx(1 / 255)]
    assert set(scales) <= {name for node in onnx.load(files["onnx"]).graph.node for name in (*node.input, *node.output)}
