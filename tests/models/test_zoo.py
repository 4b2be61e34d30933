"""The float model of a spec, from each of the three sources."""

from __future__ import annotations

import sys
from types import ModuleType

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.jobs.build import build_model
from tfqat.spec.schema import Spec


def spec(model, image_size=32, seed=0):
    return Spec.model_validate(
        {
            "results_dir": "unused",
            "random_seed": seed,
            "dataset_config": {"kind": "digits", "image_size": image_size},
            "model_config": model,
        }
    )


def net(input_shape=(32, 32, 1), num_classes=10, inputs=1):
    images = [keras.Input(input_shape) for _ in range(inputs)]
    x = layers.Add()(images) if inputs > 1 else images[0]
    return keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(x)))


@pytest.mark.parametrize("name", ["resnet8", "MobileNetV2"])
def test_architectures(name):
    model = build_model(spec({"architecture": name, "num_classes": 10}))
    assert model.input_shape == (None, 32, 32, 1)
    assert model.output_shape == (None, 10)


def test_options_reach_keras_applications():
    whole = build_model(spec({"architecture": "MobileNetV2", "num_classes": 10}))
    slim = build_model(spec({"architecture": "MobileNetV2", "num_classes": 10, "options": {"alpha": 0.35}}))
    assert slim.count_params() < whole.count_params() / 3


def test_the_seed_decides_the_weights():
    section = {"architecture": "resnet8", "num_classes": 10}
    one, same, other = (build_model(spec(section, seed=seed)).get_layer("stem").kernel for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()


def test_checkpoint(tmp_path):
    model = net()
    model.save(tmp_path / "net.keras")
    loaded = build_model(spec({"checkpoint": str(tmp_path / "net.keras")}))
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_checkpoint_of_weights_alone(tmp_path, monkeypatch):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = layers.Flatten(), layers.Dense(10)

        def call(self, inputs):
            return self.dense(self.flatten(inputs))

    module = ModuleType("users_weights")
    module.functional = lambda input_shape: net(input_shape)
    module.subclassed = lambda: Subclassed()
    monkeypatch.setitem(sys.modules, "users_weights", module)
    for name in ("functional", "subclassed"):
        path = str(tmp_path / f"{name}.weights.h5")
        first = net() if name == "functional" else Subclassed()
        first(np.zeros((1, 32, 32, 1)))
        first.save_weights(path)
        section = {"python": f"users_weights:{name}", "num_classes": 10, "checkpoint": path}
        loaded = build_model(spec(section))
        np.testing.assert_array_equal(loaded.get_weights()[0], first.get_weights()[0])


def test_weights_file(tmp_path):
    first = build_model(spec({"architecture": "resnet8", "num_classes": 10}, seed=3))
    first.save_weights(tmp_path / "first.weights.h5")
    section = {"architecture": "resnet8", "num_classes": 10, "weights": str(tmp_path / "first.weights.h5")}
    np.testing.assert_array_equal(build_model(spec(section)).get_weights()[0], first.get_weights()[0])


@pytest.fixture
def user_module(monkeypatch):
    module = ModuleType("users_models")
    monkeypatch.setitem(sys.modules, "users_models", module)
    return module


def test_python_functions_get_the_arguments_that_they_have(user_module):
    user_module.both = net
    user_module.none = lambda: net(num_classes=10)
    user_module.sequential = lambda num_classes: keras.Sequential([layers.Flatten(), layers.Dense(num_classes)])
    for name in ("both", "none", "sequential"):
        model = build_model(spec({"python": f"users_models:{name}", "num_classes": 10}))
        assert tuple(model.compute_output_shape((None, 32, 32, 1))) == (None, 10)


class Subclassed(keras.Model):
    def __init__(self, classes, branch=False):
        super().__init__()
        self.norm, self.drop, self.top = layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(classes)
        self.branch = branch

    def call(self, images, training=None):
        if self.branch and images[0, 0, 0, 0] > 0:
            images = -images
        x = self.drop(self.norm(layers.Flatten()(images), training=training), training=training)
        return self.top(x)


def test_a_subclassed_model_can_be_trained_and_saved(user_module, tmp_path):
    user_module.make = lambda num_classes: Subclassed(num_classes)
    model = build_model(spec({"python": "users_models:make", "num_classes": 10}))
    images = np.random.default_rng(0).random((8, 32, 32, 1), np.float32)
    outputs = [keras.ops.convert_to_numpy(model(images, training=mode)) for mode in (False, False, True)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[2] != outputs[1]).any()
    model.save(tmp_path / "subclassed.keras")
    again = build_model(spec({"checkpoint": str(tmp_path / "subclassed.keras")}))
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))


MISFITS = {
    "size": (lambda: net((16, 16, 1)), r"takes images of shape \(16, 16, 1\); expected \(32, 32, 1\)"),
    "channels": (lambda: net((32, 32, 3)), r"takes images of shape \(32, 32, 3\)"),
    "classes": (lambda: net(num_classes=7), r"outputs of shape \(7,\); expected \(10,\)"),
    "inputs": (lambda: net(inputs=2), "has 2 inputs; the commands expect one"),
    "headless": (lambda: keras.Sequential([keras.Input((32, 32, 1)), layers.ReLU()]), r"outputs of shape \(32, 32, "),
    "branch": (
        lambda: Subclassed(10, branch=True),
        r"Subclassed.*test_zoo\.py:\d+: `if self\.branch.*keras\.ops\.where",
    ),
    "no model": (lambda: 5, "must return a keras.Model, returned int"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_models_that_do_not_fit(user_module, case):
    user_module.make, message = MISFITS[case]
    with pytest.raises(TfqatError, match=message):
        build_model(spec({"python": "users_models:make", "num_classes": 10}))


def test_an_image_size_that_the_architecture_cannot_take():
    with pytest.raises(TfqatError, match=r"InceptionV3 cannot be built with input_shape \(32, 32, 1\)"):
        build_model(spec({"architecture": "InceptionV3", "num_classes": 10}))


def test_weights_of_another_architecture(tmp_path):
    net().save_weights(tmp_path / "other.weights.h5")
    section = {"architecture": "resnet8", "num_classes": 10, "weights": str(tmp_path / "other.weights.h5")}
    with pytest.raises(TfqatError, match="resnet8 cannot be built"):
        build_model(spec(section))


def test_a_backbone_of_the_users_own(user_module):
    """Its function is called with the images' shape; what is no model would leave the usual backbone in its place."""

    def section(name):
        sizes = {
            "width": 8,
            "depth": 1,
            "head_depth": 1,
            "activation": "relu6",
            "backbone": f"{user_module.__name__}:make",
        }
        return Spec.model_validate({
            "results_dir": "unused",
            "dataset_config": {"kind": "voc", "path": "none", "image_size": 128},
            "model_config": {"architecture": name, "num_classes": 2, "options": sizes},
        })  # fmt: skip

    def make(input_shape):
        x = image = keras.Input(input_shape)
        for number in range(5):
            x = layers.Conv2D(4, 3, 2, padding="same", name=f"of_the_user{number}")(x)
        return keras.Model(image, x)

    user_module.make = make
    model = build_model(section("efficientdet_d0"))
    assert "of_the_user4" in {layer.name for layer in model.layers}
    assert {name: tuple(tensor.shape[1:]) for name, tensor in model.output.items()} == {
        "class_logits": (3069, 2), "box_regression": (3069, 4),
    }  # fmt: skip
    for wrong, received in ((lambda: None, "NoneType"), (lambda: 3, "int")):
        user_module.make = wrong
        with pytest.raises(TfqatError, match=f"backbone: .*must return a functional keras.Model, returned {received}"):
            build_model(section("efficientdet_d0"))
