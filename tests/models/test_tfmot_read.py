"""TFMOT models out of their wrappers, and the ones that cannot be taken out."""

from __future__ import annotations

import json
import shutil
import sys

import h5py
import keras
import numpy as np
import pytest

from tfqat.errors import TfqatError
from tfqat.models.keras2.layers import keras3_layer
from tfqat.models.load import load_model
from tfqat.models.tfmot.model import is_tfmot
from tfqat.models.tfmot.read import read_tfmot


def weights_in(path):
    """Layer -> own name -> value, by another reading of the file."""
    found = {}
    with h5py.File(path) as file:
        for layer, group in file["model_weights"].items():
            group.visititems(
                lambda name, item, layer=layer: (
                    found.setdefault(layer, {}).__setitem__(name.split("/")[-1].split(":")[0], item[()])
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
    return found


def edited(path, target, change):
    """A copy of the file whose config ``change`` has been over, in place."""
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change({layer["name"]: layer for layer in config["config"]["layers"]}, config)
        file.attrs["model_config"] = json.dumps(config)
    return target


def test_the_float_model_has_the_layers_own_names_and_weights(tfmot_models):
    model, kept = read_tfmot(tfmot_models / "chain.h5").model, weights_in(tfmot_models / "chain.h5")
    names = [layer.name for layer in model.layers]
    assert names[:5] == ["image", "conv1", "conv1_bn", "relu6", "wide"]
    assert [type(layer).__module__.split(".")[0] for layer in model.layers] == ["keras"] * len(names)
    np.testing.assert_array_equal(model.get_layer("wide").kernel, kept["quant_wide"]["depthwise_kernel"])
    np.testing.assert_array_equal(model.get_layer("conv1_bn").moving_mean, kept["quant_conv1_bn"]["moving_mean"])
    np.testing.assert_array_equal(model.get_layer("scores").bias, kept["quant_scores"]["bias"])


@pytest.mark.parametrize(
    ("tensor", "layer", "key"),
    [
        ("image", "quantize_layer", "quantize_layer"),
        ("relu6", "quant_relu6", "output"),
        ("wide/relu", "quant_wide", "post_activation"),
        ("up_conv/relu", "quant_up_conv", "post_activation"),
        ("plain", "quant_plain", "post_activation"),
        ("average", "quant_average", "output"),
        ("nearest", "quant_nearest", "output"),
        ("pool", None, None),
        ("scores", "quant_scores", "pre_activation"),
        ("scores/softmax", None, None),
    ],
)
def test_each_range_belongs_to_its_tensor(tfmot_models, tensor, layer, key):
    found, kept = read_tfmot(tfmot_models / "chain.h5").activations, weights_in(tfmot_models / "chain.h5")
    if layer is None:
        assert tensor not in found
        return
    names = [name for name in kept if name.startswith(layer)]
    low, high = (
        float(
            kept[names[0]][
                next(
                    k
                    for k in kept[names[0]]
                    if k.endswith(f"{key}_{end}") or (layer == "quantize_layer" and k.endswith(f"_{end}"))
                )
            ]
        )
        for end in ("min", "max")
    )
    assert (found[tensor].low, found[tensor].high, found[tensor].bits) == (low, high, 8)


def test_kernel_ranges_are_those_of_the_file(tfmot_models):
    kernels, kept = read_tfmot(tfmot_models / "chain.h5").kernels, weights_in(tfmot_models / "chain.h5")
    np.testing.assert_array_equal(kernels["wide"].extent, kept["quant_wide"]["depthwise_kernel_max"])
    np.testing.assert_array_equal(kernels["conv1"].extent, kept["quant_conv1"]["kernel_max"])
    assert kernels["hidden"].extent.shape == kernels["up_conv"].extent.shape == ()


def test_a_separable_convolution_comes_as_the_two_that_tfmot_made_of_it(tfmot_models):
    kinds = [type(layer).__name__ for layer in read_tfmot(tfmot_models / "chain.h5").model.layers]
    assert kinds[4:7] == ["DepthwiseConv2D", "DepthwiseConv2D", "Conv2D"]


def test_bits_of_the_n_bit_scheme(tfmot_models):
    found = read_tfmot(tfmot_models / "four_bits.h5")
    assert {kernel.bits for kernel in found.kernels.values()} == {4}
    assert {tensor.bits for tensor in found.activations.values()} == {6}


def test_what_tfmot_never_trained_says_so(tfmot_models):
    found = read_tfmot(tfmot_models / "untrained.h5")
    assert not any(item.trained for item in (*found.activations.values(), *found.kernels.values()))
    assert all(item.trained for item in read_tfmot(tfmot_models / "unbatched.h5").activations.values())


def test_another_prefix_of_the_wrappers_changes_nothing(tfmot_models):
    assert [layer.name for layer in read_tfmot(tfmot_models / "prefix.h5").model.layers] == [
        layer.name for layer in read_tfmot(tfmot_models / "unbatched.h5").model.layers
    ]


def test_neither_tf_keras_nor_tfmot_is_imported(tfmot_models):
    read_tfmot(tfmot_models / "branches.h5")
    assert not {"tf_keras", "tensorflow_model_optimization"} & set(sys.modules)


def test_tells_tfmot_models_from_others(tfmot_models, tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "float.h5")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    (tmp_path / "text.h5").write_text("text")
    assert is_tfmot(tfmot_models / "chain.h5")
    assert not any(is_tfmot(tmp_path / name) for name in ("float.h5", "broken.h5", "text.h5", "none.h5"))
    assert not is_tfmot(tfmot_models)


def test_load_model_says_what_reads_it(tfmot_models):
    with pytest.raises(TfqatError, match="from_tfmot"):
        load_model(tfmot_models / "chain.h5")


def inner(layers, name):
    return layers[name]["config"]["layer"]


def custom_config(layers, config):
    layers["quant_conv"]["config"]["quantize_config"]["class_name"] = "MyQuantizeConfig"


def lambda_layer(layers, config):
    inner(layers, "quant_conv")["class_name"] = "Lambda"


def pruned(layers, config):
    layers["quant_conv"]["class_name"] = "PruneLowMagnitude"


def clustered(layers, config):
    inner(layers, "quant_conv")["class_name"] = "ClusterWeights"


def annotated(layers, config):
    layers["quant_conv"]["class_name"] = "QuantizeAnnotate"


def vitis(layers, config):
    layers["quant_conv"]["class_name"] = "Vitis>VitisQuantize"


def op_lambda(layers, config):
    layers["quant_relu"]["class_name"] = "TFOpLambda"


def custom_activation(layers, config):
    activation = inner(layers, "quant_conv2")["config"]["activation"]
    activation["config"]["activation"] = {"class_name": "Mine", "config": {}}


def other_activation(layers, config):
    inner(layers, "quant_conv2")["config"]["activation"]["config"]["activation"] = "selu"


def grouped(layers, config):
    inner(layers, "quant_conv")["class_name"] = "DepthwiseConv2D"
    inner(layers, "quant_conv")["config"]["groups"] = 2
    del inner(layers, "quant_conv")["config"]["filters"]


def custom_quantizer(layers, config):
    next(layer for layer in layers.values() if layer["class_name"] == "QuantizeLayer")["config"]["quantizer"][
        "class_name"
    ] = "MyQuantizer"


def quantized_bias(layers, config):
    layers["quant_conv2"]["config"]["quantize_config"]["config"]["weight_attrs"] = ["kernel", "bias"]


def bilinear_arguments(layers, config):
    layers["quant_relu"]["inbound_nodes"] = [[["quant_conv", 0, 0, {"mask": 1}]]]


def dangling(layers, config):
    layers["quant_relu"]["inbound_nodes"] = [[["quant_nowhere", 0, 0, {}]]]


def keyless(layers, config):
    del layers["quant_conv"]["config"]["layer"]


def nested(layers, config):
    inner_model = {"name": "quant_conv2", "layers": []}
    layers["quant_conv2"].update(class_name="Sequential", config=inner_model)


def subclassed(layers, config):
    del config["config"]["layers"]


BROKEN = [
    (custom_config, "'quant_conv' .*Conv2D.* MyQuantizeConfig"),
    (lambda_layer, "'conv' is a Lambda"),
    (pruned, "'quant_conv' .*PruneLowMagnitude.*strip_pruning"),
    (clustered, "'quant_conv' .*ClusterWeights.*strip_clustering"),
    (annotated, "'quant_conv' .*QuantizeAnnotate.*quantize_apply"),
    (vitis, "'quant_conv' is a Vitis>VitisQuantize"),
    (op_lambda, "'quant_relu' is a TFOpLambda"),
    (custom_activation, "'quant_conv2' .*custom activation 'Mine'|custom activation"),
    (other_activation, "'quant_conv2' .*'selu'"),
    (grouped, "'conv' .*groups=2"),
    (custom_quantizer, "MyQuantizer"),
    (quantized_bias, "'quant_conv2' .*'bias' is quantized"),
    (bilinear_arguments, "'quant_relu' is called with"),
    (dangling, "'quant_relu' reads tensors that no layer gives"),
    (nested, "'quant_conv2' .Sequential. is a model inside the model"),
    (keyless, "not as TFMOT 0.8 writes it"),
    (subclassed, "Sequential or functional"),
]


@pytest.mark.parametrize("key", ["depthwise_multiplier_norm", "kernel_regularizer"])
def test_a_setting_that_keras_3_has_not_and_that_is_none_changes_nothing(key):
    config = {"filters": 2, "kernel_size": 3, key: None}
    assert keras3_layer("SeparableConv2D", config, "conv").filters == 2
    with pytest.raises(TfqatError, match=f"'conv' .* has {key}='l2'"):
        keras3_layer("SeparableConv2D", {**config, key: "l2"}, "conv")


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_what_cannot_be_read_is_named(tfmot_models, tmp_path, change, message):
    path = edited(tfmot_models / "unbatched.h5", tmp_path / "broken.h5", change)
    with pytest.raises(TfqatError, match=message):
        read_tfmot(path)


@pytest.mark.parametrize(
    ("layer", "weight", "message"),
    [
        ("quant_conv2", "quant_conv2/kernel_min:0", "'quant_conv2' has no weights kernel_min and kernel_max"),
        ("quant_relu", "quant_relu/output_max:0", "'quant_relu' has no weights output_min"),
        ("quant_conv", "conv/kernel:0", "'quant_conv' .*weight 'kernel' is missing"),
    ],
)
def test_missing_weights_are_named(tfmot_models, tmp_path, layer, weight, message):
    path = tmp_path / "missing.h5"
    shutil.copy(tfmot_models / "unbatched.h5", path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights"][layer]
        names = [name for name in group.attrs["weight_names"] if name not in (weight, weight.encode())]
        group.attrs["weight_names"] = names
    with pytest.raises(TfqatError, match=message):
        read_tfmot(path)


def test_ranges_that_are_no_numbers_are_refused(tfmot_models, tmp_path):
    path = tmp_path / "nan.h5"
    shutil.copy(tfmot_models / "unbatched.h5", path)
    with h5py.File(path, "r+") as file:
        file["model_weights/quant_relu/quant_relu/output_max:0"][...] = np.nan
    with pytest.raises(TfqatError, match="'quant_relu' has a range output"):
        read_tfmot(path)


def test_names_in_several_attributes_are_read(tfmot_models, tmp_path):
    """Keras parts a list of names that is longer than 64 kB."""
    path = tmp_path / "parted.h5"
    shutil.copy(tfmot_models / "unbatched.h5", path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights"]
        names = list(group.attrs["layer_names"])
        del group.attrs["layer_names"]
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:3], names[3:]
    np.testing.assert_array_equal(
        read_tfmot(path).model.get_layer("logits").kernel,
        read_tfmot(tfmot_models / "unbatched.h5").model.get_layer("logits").kernel,
    )


def test_files_of_older_keras_2_are_read(tfmot_models, tmp_path):
    """Before Keras 2.12 no config named a module."""

    def plain(item):
        if isinstance(item, list):
            return [plain(part) for part in item]
        if not isinstance(item, dict):
            return item
        return {k: plain(v) for k, v in item.items() if k not in ("module", "registered_name", "build_config")}

    path = shutil.copy(tfmot_models / "sequential.h5", tmp_path / "old.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(plain(json.loads(file.attrs["model_config"])))
    old, new = read_tfmot(path), read_tfmot(tfmot_models / "sequential.h5")
    assert old.activations == new.activations
    assert old.model.get_layer("conv1").kernel_regularizer.l2 == pytest.approx(1e-4)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(old.model(images), new.model(images))


def test_other_files_are_refused(tfmot_models, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    (tmp_path / "model.keras").write_bytes(b"")
    (tmp_path / "cut.h5").write_bytes((tfmot_models / "chain.h5").read_bytes()[:5000])
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "float.h5")
    for path, message in [
        (folder, "SavedModel"),
        (tmp_path, "a folder"),
        (tmp_path / "none.h5", "No model file"),
        (tmp_path / "model.keras", "expected an .h5 file, received '.keras'"),
        (tmp_path / "cut.h5", "damaged|cut off|no model config"),
        (tmp_path / "float.h5", "no layer quantized by TFMOT"),
    ]:
        with pytest.raises(TfqatError, match=message):
            read_tfmot(path)


def test_other_objects_are_refused():
    with pytest.raises(TfqatError, match="a Keras 3 model"):
        read_tfmot(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    with pytest.raises(TfqatError, match="received a int"):
        read_tfmot(3)
