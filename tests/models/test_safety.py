"""Model files that ask for more than a model: refused before anything of them is run, imported or allocated."""

from __future__ import annotations

import io
import json
import shutil
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.models.declared import without_values
from tfqat.models.load import load_model


@keras.saving.register_keras_serializable("tests")
class Registered(layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


class Given(layers.Layer):
    def call(self, inputs):
        return inputs * 3.0


def net(*between):
    x = vector = keras.Input((3,), name="vector")
    for layer in between:
        x = layer(x)
    return keras.Model(vector, layers.Dense(2, name="dense")(x))


def rewritten(path, change_config=None, extra=None, change_weights=None):
    """The `.keras` file with its config, members or weights changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if change_config:
        config = json.loads(members["config.json"])
        change_config({layer["name"]: layer for layer in config["config"]["layers"]})
        members["config.json"] = json.dumps(config).encode()
    if change_weights:
        data = io.BytesIO(members["model.weights.h5"])
        with h5py.File(data, "r+") as file:
            change_weights(file)
        members["model.weights.h5"] = data.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **(extra or {})}.items():
            archive.writestr(name, content)


def other_module(layers_):
    layers_["dense"].update(module="os", class_name="system", config="touch ran", registered_name=None)


def user_module(layers_):
    layers_["dense"].update(module="evil_module", class_name="Evil", config={}, registered_name=None)


def utility(layers_):
    arguments = {"origin": "file:///etc/passwd", "fname": "x"}
    layers_["dense"].update(module="keras.utils", class_name="get_file", config=arguments)


def source_utility(layers_):
    layers_["dense"].update(module="keras.src.utils.file_utils", class_name="get_file", config={})


def initializer_of_another_module(layers_):
    layers_["dense"]["config"]["kernel_initializer"].update(module="subprocess", class_name="Popen")


def function_of_another_module(layers_):
    layers_["dense"]["config"]["activation"] = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }


def dotted_name(layers_):
    layers_["dense"]["config"]["activation"] = {
        "module": "keras",
        "class_name": "function",
        "config": "utils.get_file",
        "registered_name": "utils.get_file",
    }


def name_of_a_registered_object(layers_):
    function_of_another_module(layers_)
    layers_["dense"]["config"]["activation"]["registered_name"] = "tests>Registered"


def dotted_lambda(layers_):
    layers_["dense"].update(module="keras", class_name="layers.Lambda", config={"name": "code", "function": "x"})


def vocabulary_file(layers_):
    layers_["dense"].update(class_name="StringLookup", config={"name": "words", "vocabulary": "/etc/passwd"})


def torch_module(layers_):
    layers_["dense"].update(class_name="TorchModuleWrapper", config={"module": "gASV", "name": "torch"})


def saved_model_layer(layers_):
    layers_["dense"].update(class_name="TFSMLayer", config={"filepath": "/tmp/x", "name": "graph"})


CONFIGS = [
    (other_module, "'system' of the module 'os'|'touch ran'|module 'os'"),
    (user_module, "'Evil' of the module 'evil_module'.*nothing was imported"),
    (utility, "'get_file' of the module 'keras.utils'"),
    (source_utility, "'get_file' of the module 'keras.src.utils.file_utils'"),
    (initializer_of_another_module, "'Popen' of the module 'subprocess'"),
    (function_of_another_module, "'system' .a function. of the module 'os'"),
    (dotted_name, "'utils.get_file' .a function. of the module 'keras'"),
    (name_of_a_registered_object, "'system' .a function. of the module 'os'"),
    (dotted_lambda, "layer 'code' is a Lambda layer"),
    (vocabulary_file, "layer 'words' reads its vocabulary from another file, '/etc/passwd'; nothing was read"),
    (torch_module, "TorchModuleWrapper: a pickled object"),
    (saved_model_layer, "TFSMLayer, which runs the functions of another file"),
]


@pytest.mark.parametrize(("change", "message"), CONFIGS, ids=[change.__name__ for change, _ in CONFIGS])
def test_a_config_gets_nothing_but_what_builds_models(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text("open('ran', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    net().save(tmp_path / "net.keras")
    rewritten(tmp_path / "net.keras", change)
    with pytest.raises(TfqatError, match=message):
        load_model(tmp_path / "net.keras")
    assert not (tmp_path / "ran").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("layer", "objects"), [(Registered(), {}), (Given(), {"Given": Given})], ids=["registered", "given"]
)
def test_layers_that_the_caller_knows_are_made(tmp_path, layer, objects):
    model = net(layer)
    model.save(tmp_path / "net.keras")
    vector = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(load_model(tmp_path / "net.keras", objects)(vector), model(vector))


@pytest.mark.parametrize("registered", ["Given", "elsewhere>Given"])
def test_a_layer_that_the_caller_does_not_know_is_named(tmp_path, registered):
    net(Given(name="mine")).save(tmp_path / "net.keras")
    # As Keras writes a class of the program that was started, or one that was registered there.
    rewritten(tmp_path / "net.keras", lambda found: found["mine"].update(module=None, registered_name=registered))
    with pytest.raises(TfqatError, match=r"layer 'mine'.*'Given'.*custom_objects=\{'Given': Given\}"):
        load_model(tmp_path / "net.keras")


def test_members_that_leave_the_folder_are_refused(tmp_path):
    for name in ("../evil.txt", "/evil.txt", "assets/../../evil.txt", "..\\evil.txt"):
        net().save(tmp_path / "net.keras")
        rewritten(tmp_path / "net.keras", extra={name: b"x"})
        with pytest.raises(TfqatError, match="outside the folder"):
            load_model(tmp_path / "net.keras")


def test_a_member_that_grows_without_end_is_not_unpacked(tmp_path):
    net().save(tmp_path / "net.keras")
    rewritten(tmp_path / "net.keras", extra={"assets/zeros": bytes(300 * 2**20)})
    with pytest.raises(TfqatError, match="'assets/zeros' grows from"):
        load_model(tmp_path / "net.keras")


def dense_kernel(file):
    return next(
        file[f"{name}/vars"] for name in ("layers/dense", "_layer_checkpoint_dependencies/dense") if name in file
    )


def external_link(file):
    del dense_kernel(file)["0"]
    dense_kernel(file)["0"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file):
    del dense_kernel(file)["0"]
    dense_kernel(file)["0"] = h5py.SoftLink("/layers/dense/vars/1")


def virtual(file):
    layout = h5py.VirtualLayout((3, 2), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "data", (3, 2))
    del dense_kernel(file)["0"]
    dense_kernel(file).create_virtual_dataset("0", layout)


def external_storage(file):
    del dense_kernel(file)["0"]
    dense_kernel(file).create_dataset("0", (3, 2), np.float32, external=[("/etc/passwd", 0, 24)])


def endless(file):
    del dense_kernel(file)["0"]
    dense_kernel(file).create_dataset("0", (10**6, 10**6), np.float32, chunks=(1000, 1000))


WEIGHTS = [
    (external_link, "is a link to /etc/passwd, not data"),
    (soft_link, "is a link to another place"),
    (virtual, "takes its values from other files"),
    (external_storage, "takes its values from other files"),
    (endless, "declares the shape .1000000, 1000000."),
]


@pytest.mark.parametrize("kind", [".keras", ".weights.h5"])
@pytest.mark.parametrize(("change", "message"), WEIGHTS, ids=[change.__name__ for change, _ in WEIGHTS])
def test_weights_that_are_not_in_the_file_are_refused(tmp_path, change, message, kind):
    path, model = tmp_path / f"net{kind}", net()
    if kind == ".keras":
        model.save(path)
        rewritten(path, change_weights=change)
    else:
        model.save_weights(path)
        with h5py.File(path, "r+") as file:
            change(file)
    with pytest.raises(TfqatError, match=message):
        load_model(path, architecture=None if kind == ".keras" else net())


def secret(path):
    """A file of the same layout as compiled.h5, with other weights, which another file may not have read."""
    with h5py.File(path, "r+") as file:
        file["model_weights/dense/dense/kernel:0"][...] = 7.0
    return path


def by_an_absolute_path(file, other):
    file["optimizer_weights"] = h5py.ExternalLink(other, "/model_weights/dense")
    names = [b"/optimizer_weights/dense/kernel:0", b"/optimizer_weights/dense/bias:0"]
    file["model_weights/dense"].attrs["weight_names"] = names


def by_a_group_of_that_name(file, other):
    group = file["model_weights/dense"]
    group["optimizer"] = h5py.ExternalLink(other, "/model_weights/dense/dense")
    group.attrs["weight_names"] = [b"optimizer/kernel:0", b"optimizer/bias:0"]


def by_a_layer_of_that_name(file, other):
    file["optimizer_weights"] = h5py.ExternalLink(other, "/model_weights/dense")
    file.attrs["layer_names"] = [b"x", b"./optimizer_weights"]
    file.create_group("x").attrs["weight_names"] = np.array([], "S1")
    del file["model_weights"]


@pytest.mark.parametrize("change", [by_an_absolute_path, by_a_group_of_that_name, by_a_layer_of_that_name])
def test_the_state_of_an_optimizer_is_no_way_to_another_file(keras2_models, tmp_path, change):
    other = secret(shutil.copy(keras2_models / "compiled.h5", tmp_path / "other.h5"))
    path = shutil.copy(keras2_models / "compiled.h5", tmp_path / "net.h5")
    with h5py.File(path, "r+") as file:
        del file["optimizer_weights"]
        change(file, str(other))
    with pytest.raises(TfqatError, match=r"outside of it|is a link to .*other\.h5"):
        load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_larger_than_the_file_are_not_made(tmp_path, suffix):
    """10^13 weights would take 40 TB."""
    path = tmp_path / f"net{suffix}"
    keras.Sequential([keras.Input((10,)), layers.Dense(7, name="dense")]).save(path)

    def enlarge(layers_):
        layers_[-1]["config"]["units"] = 10**12

    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        enlarge(config["config"]["layers"])
        rewritten(path, extra={"config.json": json.dumps(config)})
    else:
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            enlarge(config["config"]["layers"])
            file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(TfqatError, match="declare 11,000,000,000,000 weights, and the file holds 77"):
        load_model(path)
    # Nor are they made later, when Keras makes up for variables that have no values yet.
    with keras.StatelessScope():
        layers.Dense(2).build((None, 3))


def doubled(depth):
    """A model whose last layer has 2^depth weights, without a large number in its config."""
    x = start = keras.Input((1,))
    for _ in range(depth):
        x = layers.Concatenate()([x, x])
    with without_values():
        return keras.Model(start, layers.Dense(1, use_bias=False)(x))


@pytest.mark.parametrize("training", [{}, {"optimizer": "none such", "loss": "none such"}], ids=["bare", "compiled"])
def test_a_size_that_no_number_in_the_config_has_is_seen(tmp_path, training):
    path = tmp_path / "net.keras"
    net().save(path)
    config = {**keras.saving.serialize_keras_object(doubled(40)), "compile_config": training}
    rewritten(path, extra={"config.json": json.dumps(config)})
    with pytest.raises(TfqatError, match="declare 1,099,511,627,776 weights"):
        load_model(path)


def test_a_shape_to_build_for_is_not_believed(tmp_path):
    """10^11 x 2 weights would be made before the layer is first called."""
    net().save(tmp_path / "net.keras")
    rewritten(
        tmp_path / "net.keras", lambda layers_: layers_["dense"]["build_config"].update(input_shape=[None, 10**11])
    )
    with pytest.raises(TfqatError, match="'dense' is incompatible"):
        load_model(tmp_path / "net.keras")


def test_a_keras_2_file_that_reads_a_vocabulary_is_refused(keras2_models, tmp_path):
    shutil.copy(keras2_models / "shapes.h5", tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        bins = next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == "bins")
        bins["config"]["vocabulary"] = "/etc/passwd"
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(TfqatError, match="layer 'bins' reads its vocabulary from another file"):
        load_model(tmp_path / "net.h5")


def marking(marker):
    """A Lambda layer whose code writes a file when it runs."""
    return layers.Lambda(eval(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"), output_shape=(3,), name="mark")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_run_for_those_who_trust_the_file_only(tmp_path, suffix):
    marker, path = tmp_path / "ran", tmp_path / f"model{suffix}"
    net(marking(marker)).save(path)
    marker.unlink(missing_ok=True)
    with pytest.raises(TfqatError, match=r"layer 'mark' is a Lambda layer.*--trust"):
        load_model(path)
    assert not marker.exists()
    load_model(path, trust=True)(np.ones((1, 3)))
    assert marker.exists()


def test_a_lambda_inside_another_layer_is_found(tmp_path):
    path = tmp_path / "model.keras"
    inner = keras.Sequential([keras.Input((3,)), marking(tmp_path / "ran")])
    net(inner).save(path)
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(TfqatError, match="Lambda layer"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_safe_mode_is_on_again_afterwards(tmp_path):
    net(marking(tmp_path / "ran")).save(tmp_path / "model.keras")
    load_model(tmp_path / "model.keras", trust=True)
    with pytest.raises(ValueError, match="safe_mode"):
        keras.models.load_model(tmp_path / "model.keras")
