"""Models of tf_keras (Keras 2) in every form that they come in, against what tf_keras computes."""

from __future__ import annotations

import json
import shutil
import sys

import h5py
import keras
import numpy as np
import pytest

from tfqat.errors import TfqatError
from tfqat.models.keras2.functions import called, tf_function
from tfqat.models.keras2.layers import keras3_layer
from tfqat.models.keras2.wiring import UNKNOWN
from tfqat.models.load import load_model

MODELS = [
    "convolutions",
    "functions",
    "shapes",
    "nested",
    "structures",
    "recurrent",
    "attention",
    "preprocessing",
    "volumes",
    "inverted_residual",
    "foreign",
    "op_nodes",
]
FORMATS = {"h5": "{}.h5", "saved_model": "{}", "keras": "{}.keras"}
# tf_keras cannot write an Ellipsis in a slice into a .keras file.
CASES = [(name, kind) for name in MODELS for kind in FORMATS if (name, kind) != ("functions", "keras")]


def kept(folder, name):
    """Inputs by name and outputs in order, as tf_keras computed them."""
    arrays = np.load(folder / f"{name}.npz")
    inputs = {key[2:]: arrays[key] for key in arrays if key.startswith("x_")}
    return inputs, [arrays[f"y{index}"] for index in range(sum(key.startswith("y") for key in arrays))]


def outputs_of(model, inputs):
    given = inputs if isinstance(model.input, dict) else list(inputs.values())
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    return keras.tree.flatten(model(given, training=False))


def check(model, folder, name):
    inputs, expected = kept(folder, name)
    received = outputs_of(model, inputs)
    assert len(received) == len(expected)
    for found, wanted in zip(received, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), CASES, ids=["-".join(case) for case in CASES])
def test_computes_what_tf_keras_computes(keras2_models, name, kind):
    check(load_model(keras2_models / FORMATS[kind].format(name)), keras2_models, name)
    assert "tf_keras" not in sys.modules


@pytest.mark.parametrize("name", ["functions", "nested", "recurrent", "attention", "inverted_residual"])
def test_the_keras_3_model_saves_and_loads_without_tfqat(keras2_models, tmp_path, name):
    load_model(keras2_models / f"{name}.h5").save(tmp_path / "again.keras")
    check(keras.models.load_model(tmp_path / "again.keras"), keras2_models, name)


def test_a_live_model_computes_the_same(keras2_models):
    arrays = np.load(keras2_models / "live.npz")
    for found, wanted in zip(arrays.values(), kept(keras2_models, "nested")[1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_keras_3_model_is_given_back():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert load_model(model) is model


@pytest.mark.parametrize("pattern", FORMATS.values(), ids=FORMATS)
def test_names_and_frozen_parts_are_kept(keras2_models, pattern):
    model = load_model(keras2_models / pattern.format("nested"))
    assert model.name == "siamese"
    outer = model.get_layer("outer")
    inner = outer.get_layer("inner")
    assert [layer.name for layer in outer.layers][1:] == ["stem", "inner", "last"]
    assert not inner.get_layer("inner_conv").trainable
    assert inner.get_layer("inner_bn").trainable
    assert not outer.get_layer("last").trainable
    assert not model.get_layer("frozen").trainable_weights
    assert model.get_layer("head").get_layer("deep").layers[0].trainable


def test_functions_are_operations_of_keras_under_their_names(keras2_models):
    model = load_model(keras2_models / "inverted_residual.h5")
    kinds = {operation.name: type(operation).__name__ for operation in model.operations}
    assert kinds["tf.__operators__.add"] == "Add"
    assert kinds["tf.math.multiply"] == "Multiply"


def edited(path, target, change):
    """A copy of the file whose config ``change`` has been over, in place."""
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config, {layer["config"]["name"]: layer for layer in config["config"]["layers"]})
        file.attrs["model_config"] = json.dumps(config)
    return target


def without(item, *keys):
    if isinstance(item, dict):
        return {key: without(value, *keys) for key, value in item.items() if key not in keys}
    return [without(part, *keys) for part in item] if isinstance(item, list) else item


def groups_of_depthwise(config, layers):
    layers["depthwise"]["config"]["groups"] = 1


def class_name_model(config, layers):
    """As before TensorFlow 2.4."""
    config["class_name"] = "Model"


def no_modules(config, layers):
    """As before Keras 2.12."""
    config["config"] = without(config["config"], "module", "registered_name", "build_config")


def typed_numbers(config, layers):
    """As Keras 2.1 wrote numbers of NumPy."""
    slope = layers["leaky"]["config"]
    slope["alpha"] = {"type": "ndarray", "value": slope["alpha"]}


def dtype_policies(config, layers):
    for layer in layers.values():
        layer["config"]["dtype"] = {"class_name": "Policy", "config": {"name": "float32", "loss_scale": None}}


def experimental_names(config, layers):
    layers["sync"]["class_name"] = "Experimental>SyncBatchNormalization"


OLDER = [groups_of_depthwise, class_name_model, no_modules, typed_numbers, dtype_policies, experimental_names]


@pytest.mark.parametrize("change", OLDER, ids=[change.__name__ for change in OLDER])
def test_files_of_older_versions(keras2_models, tmp_path, change):
    path = edited(keras2_models / "convolutions.h5", tmp_path / "old.h5", change)
    check(load_model(path), keras2_models, "convolutions")


def test_a_sequential_that_says_its_shape_in_its_first_layer(keras2_models, tmp_path):
    """As Keras 2.2 wrote it: a list of layers, without an InputLayer."""
    path = tmp_path / "old.h5"
    with h5py.File(keras2_models / "compiled.h5") as source:
        kernel, bias = (source[f"model_weights/dense/dense/{name}:0"][()] for name in ("kernel", "bias"))
        dense = json.loads(source.attrs["model_config"])["config"]["layers"][1]["config"]
    layers = [{"class_name": "Dense", "config": {**without(dense, "module"), "batch_input_shape": [None, 3]}}]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.2.4"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"dense"]
        group.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        group["dense/dense/kernel:0"], group["dense/dense/bias:0"] = kernel, bias
    vector = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(load_model(path)(vector), vector @ kernel + bias, rtol=1e-6)


def test_a_broken_optimizer_state_does_not_matter(keras2_models, tmp_path):
    path = tmp_path / "model.h5"
    shutil.copy(keras2_models / "compiled.h5", path)
    with h5py.File(path, "r+") as file:
        del file["optimizer_weights"]
        file["optimizer_weights"] = h5py.ExternalLink("nowhere.h5", "/")
        file.attrs["training_config"] = "no JSON"
    assert load_model(path)(np.ones((1, 3))).shape == (1, 2)


def other_groups(config, layers):
    layers["depthwise"]["config"]["groups"] = 3


def virtual_batches(config, layers):
    layers["bn"]["config"]["virtual_batch_size"] = 8


def own_activation(config, layers):
    layers["conv"]["config"]["activation"] = "my_activation"


def own_layer(config, layers):
    layers["conv"]["class_name"] = "MyPackage>MyConv"


def area(config, layers):
    layers["resize"]["config"]["interpolation"] = "area"


def ragged(config, layers):
    layers["image"]["config"]["ragged"] = True


def more_filters(config, layers):
    layers["conv"]["config"]["filters"] = 5


def damaged(config, layers):
    del layers["conv"]["inbound_nodes"]


REFUSED = [
    (other_groups, "'depthwise' .*groups=3"),
    (virtual_batches, "'bn' .*virtual_batch_size=8"),
    (own_activation, "'conv' .*'my_activation'"),
    (own_layer, "'conv' is a MyPackage>MyConv, which is no layer of Keras 3.*custom_objects"),
    (area, "'resize' .*area"),
    (ragged, "'image' takes ragged tensors"),
    (more_filters, "layer 'conv': expected the weights kernel .3, 3, 3, 5."),
    (damaged, "not as Keras 2 writes it.*inbound_nodes"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[change.__name__ for change, _ in REFUSED])
def test_what_has_no_counterpart_is_named(keras2_models, tmp_path, change, message):
    path = edited(keras2_models / "convolutions.h5", tmp_path / "other.h5", change)
    with pytest.raises(TfqatError, match=message):
        load_model(path)


def text_for_a_shape(config, layers):
    layers["image"]["config"]["batch_input_shape"] = "image"


def no_node(config, layers):
    layers["leaky"].update(class_name="TensorFlowOpLayer", config={"name": "leaky", "node_def": "x"})


def foreign_layer_names(file):
    file["model_weights"].attrs["layer_names"] = 5


def names_that_are_no_text(file):
    file["model_weights/conv"].attrs["weight_names"] = [b"\xff\xfe"]


def values_that_are_no_numbers(file):
    name = next(iter(file["model_weights/conv"].attrs["weight_names"]))
    del file["model_weights/conv"][name]
    file["model_weights/conv"][name] = np.full((3, 3, 3, 4), b"x")


def weights_of_no_layer(file):
    group = file["model_weights"]
    names = [name if isinstance(name, bytes) else name.encode() for name in group.attrs["layer_names"]]
    group.attrs["layer_names"] = [*names, b"more"]
    group.create_group("more").attrs["weight_names"] = [b"kernel"]
    group["more/kernel"] = np.ones(3)


DAMAGED = [
    (text_for_a_shape, None, r"layer 'image' \(InputLayer\).*invalid dimension"),
    (no_node, None, "'leaky' .TensorFlowOpLayer.: its node_def cannot be read"),
    (None, foreign_layer_names, "not as Keras 2 writes it, so damaged"),
    (None, names_that_are_no_text, "not as Keras 2 writes it, so damaged"),
    (None, values_that_are_no_numbers, "not as Keras 2 writes it, so damaged"),
    (None, weights_of_no_layer, r"weights of the layer 'more' \(kernel \(3,\)\), which its config has not"),
]


@pytest.mark.parametrize(
    ("change", "change_weights", "message"), DAMAGED, ids=[(first or other).__name__ for first, other, _ in DAMAGED]
)
def test_damage_is_told_as_such(keras2_models, tmp_path, change, change_weights, message):
    path = edited(keras2_models / "convolutions.h5", tmp_path / "damaged.h5", change or (lambda config, layers: None))
    if change_weights:
        with h5py.File(path, "r+") as file:
            change_weights(file)
    with pytest.raises(TfqatError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local.h5", "'local' is a LocallyConnected1D, which is no layer of Keras 3"),
        ("unknown_function.h5", "'tf.math.lgamma' calls the TensorFlow function tf.math.lgamma"),
        ("lambda.h5", "layer 'double' is a Lambda layer.*--trust"),
        ("crop.h5", r"layer 'crop' \(RandomCrop\).*resizes images of \(8, 6\) to \(4, 4\).*Crop in the dataset"),
        ("always.h5", r"layer 'always' \(Dropout\).*training=True"),
        ("positions.h5", r"layer 'positions' \(Embedding\).*called on constants"),
        ("adapted.keras", r"layer 'words' \(StringLookup\) has no vocabulary.*get_vocabulary"),
        ("tiled.h5", "'tf.tile' calls tf.tile .*a size that only a batch knows"),
        ("axes.h5", r"'both' \(BatchNormalization\) cannot be made in Keras 3: [^{]*$"),
        (
            "checkpoint",
            "a folder with a TensorFlow checkpoint, which holds weights only; load it into its tf_keras model",
        ),
        ("checkpoint/ckpt", "ckpt is a TensorFlow checkpoint"),
        ("checkpoint/ckpt.data-00000-of-00001", "is a TensorFlow checkpoint"),
        ("checkpoint/checkpoint", "is a TensorFlow checkpoint"),
        ("subclassed", "without the config of a Keras model|a subclassed model"),
        ("plain_saved_model", "without the config of a Keras model.*model.export"),
    ],
)
def test_files_of_tf_keras_that_are_refused(keras2_models, name, message):
    with pytest.raises(TfqatError, match=message) as error:
        load_model(keras2_models / name)
    assert name in str(error.value) or name != "lambda.h5"


def test_custom_objects_take_the_place_of_unknown_layers(keras2_models):
    class Local(keras.layers.Layer):
        def __init__(self, filters, kernel_size, **kwargs):
            super().__init__(name=kwargs["name"])
            self.filters = filters

        def build(self, shape):
            self.kernel = self.add_weight(shape=(2, 2, self.filters), name="kernel")
            self.bias = self.add_weight(shape=(2, self.filters), name="bias")

        def call(self, inputs):
            windows = keras.ops.concatenate([inputs[:, :-1], inputs[:, 1:]], axis=-1)
            return keras.ops.einsum("btk,tkf->btf", windows, self.kernel) + self.bias

    assert load_model(keras2_models / "local.h5", {"LocallyConnected1D": Local}).output_shape == (None, 2, 2)


def test_a_custom_object_that_is_no_layer_of_keras_3_is_refused(keras2_models):
    class Local:
        """As a layer class of tf_keras is."""

        @classmethod
        def from_config(cls, config):
            return cls()

    with pytest.raises(TfqatError, match=r"'local': the custom object .*Local'>; expected a class derived from keras"):
        load_model(keras2_models / "local.h5", {"LocallyConnected1D": Local})


def test_a_trusted_lambda_runs(keras2_models):
    model = load_model(keras2_models / "lambda.h5", trust=True)
    np.testing.assert_array_equal(model(np.ones((1, 3))), np.full((1, 3), 2.0))
    model = load_model(keras2_models / "lambda_defaults.h5", trust=True)
    np.testing.assert_array_equal(model(np.ones((1, 3))), np.full((1, 3), 4.0))


@pytest.mark.parametrize("part", ["variables/variables.index", "saved_model.pb", "keras_metadata.pb"])
def test_a_damaged_saved_model_is_refused(keras2_models, tmp_path, part):
    folder = shutil.copytree(keras2_models / "inverted_residual", tmp_path / "damaged")
    (folder / part).write_bytes((folder / part).read_bytes()[:-200])
    with pytest.raises(TfqatError, match="damaged"):
        load_model(folder)


def test_training_state_of_keras_2_is_not_dropped_in_silence(keras2_models):
    with pytest.raises(TfqatError, match=r"compile: .*an \.h5 file of Keras 2"):
        load_model(keras2_models / "compiled.h5", compile=True)


def test_weights_of_keras_2_are_read_into_a_keras_3_architecture(keras2_models):
    path, whole = keras2_models / "nested_weights.h5", load_model(keras2_models / "nested.h5")

    def fresh():
        """The architecture with other values, under the names of another program."""
        model = keras.models.clone_model(whole)
        for weight in model.weights:
            weight.assign(keras.ops.full(weight.shape, 0.5))
        return model

    with pytest.raises(TfqatError, match=r"holds weights only.*architecture="):
        load_model(path)
    check(load_model(path, architecture=fresh), keras2_models, "nested")


def other_layers():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])


def other_sizes():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, name="wide")])


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (other_layers, "of another architecture: it has weights of the layers dense; the model .* has dense"),
        (other_sizes, r"layer 'wide': expected the weights kernel \(3, 5\), bias \(5,\); found kernel \(3, 2\)"),
    ],
    ids=["layers", "sizes"],
)
def test_weights_of_keras_2_of_another_architecture_are_refused(keras2_models, tmp_path, architecture, message):
    with pytest.raises(TfqatError, match=message):
        load_model(weights_of_dense(keras2_models, tmp_path / "a.weights.h5"), architecture=architecture)


def test_weights_of_keras_2_are_matched_in_order_where_the_names_differ(keras2_models, tmp_path):
    path = weights_of_dense(keras2_models, tmp_path / "a.h5")
    model = load_model(path, architecture=keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")]))
    vector = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(model(vector), load_model(keras2_models / "compiled.h5")(vector))


def weights_of_dense(folder, path):
    """A file as tf_keras' save_weights writes it."""
    with h5py.File(folder / "compiled.h5") as source, h5py.File(path, "w") as file:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", file)
        for key, value in source["model_weights"].attrs.items():
            file.attrs[key] = value
    return path


def test_a_gru_without_reset_after_is_that_of_old_keras_2():
    assert not keras3_layer("GRU", {"units": 2}, "gru").reset_after


@pytest.mark.parametrize("symbol", ["linalg.svd", "image.transpose", "strings.split", "compat.v1.image.resize"])
def test_functions_that_mean_something_else_are_named(symbol):
    with pytest.raises(TfqatError, match=rf"'x' calls the TensorFlow function tf\.{symbol}"):
        tf_function(symbol, "x")


@pytest.mark.parametrize(
    ("symbol", "arguments", "message"),
    [
        ("image.resize", {"size": [2, 2], "preserve_aspect_ratio": True}, "preserve_aspect_ratio"),
        ("image.resize", {"size": [2, 2], "method": "area"}, "received area"),
        ("image.resize", {"size": [UNKNOWN, 4]}, "only a batch knows; give the Input a fixed shape"),
        ("reshape", {"shape": [UNKNOWN, UNKNOWN, -1]}, "only a batch knows"),
        (
            "__operators__.getitem",
            {"slice_spec": [{"start": UNKNOWN, "stop": None, "step": None}]},
            "only a batch knows",
        ),
        ("norm", {"ord": 1}, "expected an axis"),
        ("tile", {"multiples": [UNKNOWN, 1, 1, 1]}, "only a batch knows; give the Input a fixed shape"),
    ],
)
def test_calls_that_keras_cannot_make_are_named(symbol, arguments, message):
    image = keras.Input((None, None, 3))
    with pytest.raises(TfqatError, match=rf"'x' calls tf\.{symbol} .*{message}"):
        called(tf_function(symbol, "x"), "x", symbol, image, arguments)


def test_an_einsum_that_tf_keras_has_written_down_in_part_is_named():
    with pytest.raises(TfqatError, match=r"'x' calls tf\.einsum .*no more than the equation 'ab,bc->ac'"):
        called(tf_function("einsum", "x"), "x", "einsum", "ab,bc->ac", {})
