"""Model files of every kind: read, or refused with a reason."""

from __future__ import annotations

import json
import sys
import zipfile

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


@pytest.mark.parametrize(("suffix", "other"), [(".keras", ".zip"), (".keras", ".h5"), (".h5", ".keras"), (".h5", "")])
def test_files_are_told_apart_by_content(tmp_path, suffix, other):
    model = net()
    model.save(tmp_path / f"model{suffix}")
    path = (tmp_path / f"model{suffix}").rename(tmp_path / f"renamed{other}")
    np.testing.assert_array_equal(load_model(path)(IMAGES), model(IMAGES))


class OwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_own_loss_matters_to_those_who_want_it_only(tmp_path, suffix):
    model, path = net(), tmp_path / f"model{suffix}"
    model.compile("sgd", OwnLoss())
    model.save(path)
    np.testing.assert_array_equal(load_model(path)(IMAGES), model(IMAGES))
    if suffix == ".keras":
        with pytest.raises(TfqatError, match="asks for 'OwnLoss'"):
            load_model(path, compile=True)


def rewrite(path, change):
    """Changes the members of a `.keras` file, in place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def replace_in_config(members, old, new):
    members["config.json"] = members["config.json"].replace(old, new)


def set_version(members, version):
    members["metadata.json"] = json.dumps({"keras_version": version}).encode()


def test_an_error_of_keras_names_the_layer_without_its_config(tmp_path):
    path = tmp_path / "net.keras"
    net().save(path)
    rewrite(path, lambda members: replace_in_config(members, b'"units": 4', b'"units": -4'))
    with pytest.raises(TfqatError, match=r"layer 'dense\w*' \(Dense\): Received an invalid value for `units`") as error:
        load_model(path)
    assert len(str(error.value)) < 400


def test_reads_a_chain_of_1000_layers_and_puts_the_recursion_limit_back(tmp_path):
    x = vector = keras.Input((2,))
    for index in range(1000):
        x = layers.ReLU(name=f"relu{index}")(x)
    with room_for():
        keras.Model(vector, x).save(tmp_path / "deep.keras")
    limit = sys.getrecursionlimit()
    assert len(load_model(tmp_path / "deep.keras").layers) == 1001
    assert sys.getrecursionlimit() == limit


def weights_of(model, path):
    model.save_weights(path)
    return path


def other_net():
    model = net()
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).random(weight.shape))
    return model


def test_weights_are_read_into_their_architecture(tmp_path):
    saved, given = other_net(), net()
    path = weights_of(saved, tmp_path / "net.weights.h5")
    assert load_model(path, architecture=given) is given
    np.testing.assert_array_equal(given(IMAGES), saved(IMAGES))
    np.testing.assert_array_equal(load_model(path, architecture=net)(IMAGES), saved(IMAGES))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (None, "holds weights only.*architecture="),
        (lambda: keras.Sequential([keras.Input((2,)), layers.Dense(1)]), "another architecture.*dense\\w*/kernel"),
        (lambda: 3, "expected a keras.Model or a function of one; received a int"),
        ("resnet8", "expected a keras.Model or a function of one; received a str"),
        (keras.Sequential([layers.Dense(1)]), "is not built"),
    ],
    ids=["none", "other", "number", "text", "unbuilt"],
)
def test_weights_without_their_architecture_are_refused(tmp_path, architecture, message):
    path = weights_of(net(), tmp_path / "net.weights.h5")
    with pytest.raises(TfqatError, match=message):
        load_model(path, architecture=architecture)


@pytest.mark.parametrize("name", ["net.h5", "net.bin"])
def test_weights_are_told_by_content_too(tmp_path, name):
    path = weights_of(other_net(), tmp_path / "net.weights.h5").rename(tmp_path / name)
    np.testing.assert_array_equal(load_model(path, architecture=net)(IMAGES), other_net()(IMAGES))


def test_a_whole_model_takes_no_architecture(tmp_path):
    net().save(tmp_path / "net.keras")
    with pytest.raises(TfqatError, match="brings its own model"):
        load_model(tmp_path / "net.keras", architecture=net)


def test_a_lookup_that_lost_its_vocabulary_is_named(tmp_path):
    """Keras keeps what was adapted in .keras files only."""
    words = layers.TextVectorization(output_sequence_length=3, name="words")
    words.adapt(["a b", "c"])
    text = keras.Input((1,), dtype="string")
    model = keras.Model(text, layers.Embedding(5, 2)(words(text)))
    model.save(tmp_path / "net.keras")
    model.save(tmp_path / "net.h5")
    given = keras.ops.convert_to_tensor([["a c"]])
    np.testing.assert_array_equal(load_model(tmp_path / "net.keras")(given), model(given))
    with pytest.raises(TfqatError, match=r"layer 'words' \(TextVectorization\) has no vocabulary.*as \.keras"):
        load_model(tmp_path / "net.h5")


def test_an_h5_file_with_operations_says_which_kind_of_file_holds_them(tmp_path):
    vector = keras.Input((4,))
    keras.Model(vector, layers.Dense(2)(vector[:, :2])).save(tmp_path / "net.h5")
    with pytest.raises(TfqatError, match=r"'GetItem'.*save as \.keras"):
        load_model(tmp_path / "net.h5")


def test_a_file_of_a_newer_keras_says_so(tmp_path):
    path = tmp_path / "net.keras"
    net().save(path)
    rewrite(path, lambda members: set_version(members, "3.99.0"))
    rewrite(path, lambda members: replace_in_config(members, b'"DepthwiseConv2D"', b'"NewerConv2D"'))
    with pytest.raises(TfqatError, match=r"saved by Keras 3\.99\.0, and this is"):
        load_model(path)


@pytest.mark.parametrize("version", ["2-beta", "3x.1", "²", 3, None])
def test_a_version_that_is_none_does_not_matter(tmp_path, version):
    path, model = tmp_path / "net.keras", net()
    model.save(path)
    rewrite(path, lambda members: set_version(members, version))
    np.testing.assert_array_equal(load_model(path)(IMAGES), model(IMAGES))


class Unbuilt:
    """As a Sequential of tf_keras is before it is called."""

    name, layers, built = "sequential", (), False

    @property
    def weights(self):
        raise ValueError("Weights for model 'sequential' have not yet been created")

    def get_config(self):
        return {"name": self.name, "layers": []}

    def to_json(self):
        return json.dumps({"class_name": "Sequential", "config": self.get_config()})


def test_a_live_model_without_weights_is_refused():
    with pytest.raises(TfqatError, match="the Unbuilt model 'sequential' has no weights yet; call it on data"):
        load_model(Unbuilt())


def test_other_objects_are_refused():
    with pytest.raises(TfqatError, match="received a int"):
        load_model(3)


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


def _exported(path):
    net().export(path, verbose=False)


def _pytorch(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"x")


def _checkpoint_folder(path):
    path.mkdir()
    (path / "ckpt-1.index").write_bytes(b"x")


REFUSED = {
    "none.keras": (lambda path: None, "No model file at"),
    "folder": (_folder, "a folder, not a model file"),
    "saved": (_saved_model, "a SavedModel without the config of a Keras model"),
    "exported": (_exported, "a SavedModel without the config of a Keras model.*model.export"),
    "checkpoints": (_checkpoint_folder, "a TensorFlow checkpoint, which holds weights only"),
    "empty.keras": (lambda path: path.write_bytes(b""), "an empty file"),
    "model.tflite": (lambda path: path.write_bytes(b"    TFL3"), "a TFLite model"),
    "lite.bin": (lambda path: path.write_bytes(b"    TFL3"), "a TFLite model"),
    "model.pt": (_pytorch, "a PyTorch model"),
    "old.pth": (lambda path: path.write_bytes(b"\x80\x02}"), "a PyTorch model"),
    "unknown": (lambda path: path.write_bytes(b"MZ"), "no model file of a known kind"),
    "text.keras": (lambda path: path.write_text("no zip"), "not a .keras file"),
    "text.h5": (lambda path: path.write_text("no hdf5"), "not an HDF5 file"),
    "model.onnx": (lambda path: path.write_text("x"), "an ONNX model. Expected a .keras, .h5"),
    "cut.keras": (_cut_in_half, "not a .keras file .no zip archive.: it is cut off"),
    "cut.h5": (_cut_in_half, "cannot be read|not an HDF5"),
    "damaged.keras": (_damaged, "no complete .keras file"),
    "zip.keras": (_other_zip, "no complete .keras file"),
    "some.weights.h5": (_weights_only, "holds weights only"),
    "mystery.keras": (_unknown_layer, "Mystery"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    make, message = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(TfqatError, match=message) as error:
        load_model(tmp_path / name)
    assert name in str(error.value)
