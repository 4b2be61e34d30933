"""Model files of every kind: read, or refused with a reason."""

from __future__ import annotations

import json
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.models.load import load_model

IMAGES = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)


def net():
    image = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(image)
    x = layers.BatchNormalization()(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_reads_what_keras_3_writes(tmp_path, suffix):
    model, path = net(), tmp_path / f"model{suffix}"
    model.save(path)
    np.testing.assert_array_equal(load_model(path)(IMAGES), model(IMAGES))


def keras2_file(path, groups=1):
    """An `.h5` file whose DepthwiseConv2D has the `groups` that Keras 2 wrote."""
    model = net()
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        (depthwise,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "DepthwiseConv2D"]
        depthwise["config"]["groups"] = groups
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
    return model


def test_reads_the_depthwise_convolutions_of_keras_2(tmp_path):
    model = keras2_file(tmp_path / "old.h5")
    loaded = load_model(tmp_path / "old.h5")
    assert type(loaded.get_layer("depthwise")) is layers.DepthwiseConv2D
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


def test_groups_that_mean_something_are_refused(tmp_path):
    keras2_file(tmp_path / "old.h5", groups=3)
    with pytest.raises(TfqatError, match="'depthwise' has groups 3"):
        load_model(tmp_path / "old.h5")


def test_reads_a_chain_of_1000_layers_and_puts_the_recursion_limit_back(tmp_path):
    x = vector = keras.Input((2,))
    for index in range(1000):
        x = layers.ReLU(name=f"relu{index}")(x)
    with room_for():
        keras.Model(vector, x).save(tmp_path / "deep.keras")
    limit = sys.getrecursionlimit()
    assert len(load_model(tmp_path / "deep.keras").layers) == 1001
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_refused_and_not_run(tmp_path, suffix):
    marker = tmp_path / "ran"
    image = keras.Input((8, 8, 3))
    code = eval(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]")
    keras.Model(image, layers.Lambda(code, output_shape=(8, 8, 3))(image)).save(tmp_path / f"model{suffix}")
    marker.unlink(missing_ok=True)
    with pytest.raises(TfqatError, match="Lambda layer"):
        load_model(tmp_path / f"model{suffix}")
    assert not marker.exists()


def _folder(path):
    path.mkdir()


def _saved_model(path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"")


def _cut_in_half(path):
    net().save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def _damaged(path):
    net().save(path)
    data = bytearray(path.read_bytes())
    position = data.find(b"model.weights.h5") + 1000
    data[position : position + 3000] = bytes(byte ^ 0x55 for byte in data[position : position + 3000])
    path.write_bytes(data)


def _other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no model")


def _weights_only(path):
    net().save_weights(path)


def _unknown_layer(path):
    class Mystery(layers.Layer):
        def call(self, inputs):
            return inputs

    image = keras.Input((8, 8, 3))
    keras.Model(image, Mystery()(image)).save(path)


def _of_tf_keras(path, config):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")


def _tf_keras(path):
    _of_tf_keras(path, {"module": "tf_keras.src.engine.functional", "class_name": "Functional", "config": {}})


def _tfmot(path):
    layer = {"class_name": "QuantizeWrapperV2", "config": {}}
    _of_tf_keras(path, {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}})


REFUSED = {
    "none.keras": (lambda path: None, "No model file at"),
    "folder": (_folder, "a folder, not a model file"),
    "saved": (_saved_model, "a TensorFlow SavedModel, which Keras 3 cannot read"),
    "text.keras": (lambda path: path.write_text("no zip"), "not a .keras file"),
    "text.h5": (lambda path: path.write_text("no hdf5"), "not an HDF5 file"),
    "model.onnx": (lambda path: path.write_text("x"), "ends in .keras, .h5"),
    "cut.keras": (_cut_in_half, "not a .keras file .no zip archive.: it is cut off"),
    "cut.h5": (_cut_in_half, "cannot be read|not an HDF5"),
    "damaged.keras": (_damaged, "no complete .keras file"),
    "zip.keras": (_other_zip, "no complete .keras file"),
    "some.weights.h5": (_weights_only, "holds weights only"),
    "tf_keras.keras": (_tf_keras, "written by tf_keras.*save it again as .h5"),
    "tfmot.keras": (_tfmot, "quantized by .*TFMOT.*quantize_scope.*save it again as .h5"),
    "mystery.keras": (_unknown_layer, "Mystery"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    make, message = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(TfqatError, match=message) as error:
        load_model(tmp_path / name)
    assert name in str(error.value)
