"""Files of another model, of another target, or that do not say the same, are found out."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.exporters import manifest
from tfqat.exporters.tflite_graph import c_array
from tfqat.exporters.tflite_graph.flatbuffer import pack, unpack
from tfqat.verification.files import disagreements, open_files


def net(prefix: str = "") -> keras.Model:
    image = keras.Input((8, 8, 3), name=f"{prefix}image")
    x = layers.Conv2D(4, 3, activation="relu", name=f"{prefix}conv")(image)
    x = layers.GlobalAveragePooling2D(name=f"{prefix}pool")(x)
    return keras.Model(image, layers.Dense(3, name=f"{prefix}head")(x))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")


def prepared(images, target, prefix=""):
    keras.utils.set_random_seed(0)
    model = tfqat.prepare(net(prefix), target=target)
    tfqat.calibrate(model, images)
    return model


@pytest.fixture(scope="module")
def exported(images, tmp_path_factory):
    """Target -> (model, folder)."""
    found = {}
    for target in ("tflite", "sima"):
        model, folder = prepared(images, target), tmp_path_factory.mktemp(target)
        tfqat.export(model, folder, c_array=target == "tflite")
        found[target] = model, folder
    return found


@pytest.mark.parametrize("target", ["tflite", "sima"])
def test_files_of_a_model_with_other_names_are_refused(exported, images, target):
    with pytest.raises(TfqatError, match="another model"):
        tfqat.verify(prepared(images, target, prefix="other_"), exported[target][1], images)


def test_files_of_another_target_are_refused(exported, images):
    with pytest.raises(TfqatError, match="exported for the target 'sima', the model was prepared for 'tflite'"):
        tfqat.verify(exported["tflite"][0], exported["sima"][1], images)


def rewritten(folder, name, data):
    """Changes a file, and the manifest so that it does not tell."""
    (folder / name).write_bytes(data)
    listed = manifest.read(folder / "manifest.json")
    rows = {role: manifest.entry(folder / row["name"], row["read_by"]) for role, row in listed.files.items()}
    document = json.loads((folder / "manifest.json").read_text()) | {"files": rows}
    (folder / "manifest.json").write_text(json.dumps(document))


@pytest.fixture
def copied(images, tmp_path):
    tfqat.export(prepared(images, "tflite"), tmp_path, c_array=True)
    assert disagreements(open_files(tmp_path)) == []
    return tmp_path


def test_a_scale_that_is_only_in_the_tflite_model_is_told(copied):
    data = (copied / "model.tflite").read_bytes()
    model = unpack(data)
    tensor = next(t for t in model.subgraphs[0].tensors if t.name == b"conv/relu")
    tensor.quantization.scale = tensor.quantization.scale * np.float32(1.001)
    rewritten(copied, "model.tflite", pack(model, len(data)))
    found = disagreements(open_files(copied))
    assert len(found) == 2  # the C source is another now as well
    assert "other scales than the encodings for conv/relu" in found[0]


def test_c_source_of_other_bytes_is_told(copied):
    data = (copied / "model.tflite").read_bytes()
    assert c_array.read(copied / "model_data.c") == data
    text = (copied / "model_data.c").read_text()
    rewritten(copied, "model_data.c", text.replace("0x1c,", "0x1d,", 1).encode())
    assert disagreements(open_files(copied)) == ["the C source holds other bytes than the TFLite model"]


def test_a_layer_called_twice_on_one_tensor(images, tmp_path):
    """The converter makes one node of the two calls."""
    keras.utils.set_random_seed(0)
    a = keras.Input((6,), name="a")
    shared = layers.Dense(6, activation="relu", name="d")
    total = layers.Add(name="sum")([layers.Dense(6, name="e")(shared(a)), shared(a)])
    model = tfqat.prepare(keras.Model(a, layers.Dense(2, name="out")(total)))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    tfqat.calibrate(model, data)
    tfqat.export(model, tmp_path)
    assert tfqat.verify(model, tmp_path, data).passed


def test_nothing_is_rounded_between_two_float_layers(images, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.LayerNormalization(name="norm")(x)
    model = tfqat.prepare(keras.Model(image, layers.Dense(3, name="out")(x)))
    assert "norm" not in model.placement.activations
    tfqat.calibrate(model, images)
    tfqat.export(model, tmp_path)
    assert tfqat.verify(model, tmp_path, images).passed
