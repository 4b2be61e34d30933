"""The README's examples: the loops train, their ranges move and then stay, their files are the model; the custom layer
is looked into."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfqat
from tfqat.rewrite.model import range_layers

FOLDER = Path(__file__).parent


def ranges(model):
    return [keras.ops.convert_to_numpy(layer.extent).copy() for layer in range_layers(model)]


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module", params=["own_loop", "train_step"])
def run(request, tmp_path_factory):
    """One run of an example: model, accuracy, files, and the ranges after calibrating and at freezing."""
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("calibrate", "freeze"):
            original = getattr(tfqat, verb)

            def watched(model, *args, original=original, verb=verb, **kwargs):
                result = original(model, *args, **kwargs)
                seen[verb] = ranges(model)
                return result

            patch.setattr(tfqat, verb, watched, raising=False)
        model, accuracy, files = module(request.param).main(tmp_path_factory.mktemp(request.param) / "out")
    return model, accuracy, files, seen


def test_it_learns(run):
    _, accuracy, _, _ = run
    assert accuracy > 0.94


def test_ranges_move_and_then_stay(run):
    model, _, _, seen = run
    moved = [not np.array_equal(a, b) for a, b in zip(seen["calibrate"], seen["freeze"], strict=True)]
    assert len(moved) >= 3
    assert np.mean(moved) > 0.5
    for at_freezing, at_the_end in zip(seen["freeze"], ranges(model), strict=True):
        assert np.array_equal(at_freezing, at_the_end)


def test_an_unfinalized_model_exports_the_same_bytes(run, tmp_path):
    model, _, files, _ = run
    assert not model.finalized
    again = tfqat.export(model, tmp_path / "unfinalized")
    assert set(again) == set(files)
    for role, path in again.items():
        assert path.read_bytes() == files[role].read_bytes(), role


def test_the_exported_file_is_as_accurate(run):
    _, accuracy, files, _ = run
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    _, x_test, _, y_test = train_test_split(images, labels, test_size=500, stratify=labels, random_state=0)
    session = onnxruntime.InferenceSession(files["qdq_onnx"])
    scores = session.run(None, {session.get_inputs()[0].name: x_test})[0]
    assert np.mean(scores.argmax(1) == y_test) == pytest.approx(accuracy, abs=0.005)


def test_the_custom_layer_is_looked_into():
    plan = module("custom_layer").main()
    rows = {row.op: row for row in plan.rows}
    assert plan.int8_mac_share == 1.0
    assert (rows["gate/matmul"].kind, rows["gate/matmul"].state) == ("dense", "int8")
    assert not [row.op for row in plan.rows if row.state == "float" and not row.output]
