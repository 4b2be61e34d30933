"""What the fields of a Target do to a placement, each alone, on an invented target."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.graph.block import chain
from tfqat.graph.placement import placement_from_dict
from tfqat.graph.target import Target
from tfqat.rewrite.plan import plan_for, with_activation
from tfqat.rewrite.prepare import quantize

ASYMMETRIC = Scheme(symmetric=False)
UNSIGNED = Scheme(signed=False)
PAGE = "https://example.org/guide"
PLAIN = Target(
    name="invented",
    activation=ASYMMETRIC,
    weight=Scheme(narrow=True),
    weighted=frozenset({"conv2d", "dense"}),
    own_range=frozenset({"add", "multiply", "relu6", "relu", "rescaling", "batch_normalization"}),
    shared_range=frozenset({"max_pooling2d", "concatenate", "flatten"}),
    blocks=(chain("conv_act", PAGE, {"conv2d", "dense"}, {"batch_normalization"}, {"relu6", "relu"}),),
    exporters=("qdq_onnx",),
    source=PAGE,
    float_outputs=False,
    float_inputs=False,
)


def plan(model, **changes):
    return plan_for(model, replace(PLAIN, **changes), relu6=()).placement


def image(channels=3):
    return keras.Input((8, 8, channels), name="image")


def gated():
    """conv -> sigmoid, and a concatenation of the two."""
    x = image()
    y = layers.Conv2D(4, 1, name="conv")(x)
    gate = layers.Activation("sigmoid", name="gate")(y)
    return keras.Model(x, layers.Concatenate(name="cat")([y, gate]))


def test_outputs_and_inputs_on_integers():
    model = keras.Sequential([image(), layers.Rescaling(1 / 255, name="scale"), layers.Conv2D(2, 1, name="conv")])
    assert list(plan(model).activations) == ["image", "scale", "conv"]
    assert list(plan(model, float_inputs=True, float_outputs=True).activations) == ["scale"]


def test_a_fixed_range():
    found = plan(gated(), fixed_range={"sigmoid": (0.0, 255 / 256)})
    assert found.fixed == {"gate": (0.0, 255 / 256)}
    assert "fixed [0, 0.996094]" in str(found)


def test_a_join_with_a_fixed_range_has_its_own():
    found = plan(gated(), fixed_range={"sigmoid": (0.0, 255 / 256)})
    assert list(found.activations) == ["image", "conv", "gate", "cat"]
    assert found.groups == {"conv": "conv", "cat": "conv"}
    assert {row.op: row.state for row in found.rows}["cat"] == "int8"
    shared = plan(gated(), own_range=PLAIN.own_range | {"sigmoid"})
    assert list(shared.activations) == ["image", "conv", "gate"]
    assert set(shared.groups) == {"conv", "gate"}


def test_a_join_of_fixed_ranges_is_tied_to_none():
    x = image()
    gates = [layers.Activation(kind, name=kind)(x) for kind in ("sigmoid", "tanh")]
    ranges = {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
    found = plan(keras.Model(x, layers.Concatenate(name="cat")(gates)), fixed_range=ranges)
    assert list(found.activations) == ["image", "sigmoid", "tanh", "cat"]
    assert found.groups == {}


def test_a_join_that_stays_float_ties_nothing():
    target = replace(PLAIN, fixed_range={"sigmoid": (0.0, 255 / 256)})
    found = plan_for(gated(), target, [{"match": "cat", "quantize": False}], relu6=()).placement
    assert list(found.activations) == ["image", "conv", "gate"]
    assert found.groups == {}


def test_a_fixed_range_goes_through_ops_that_keep_it():
    x = image()
    gate = layers.Activation("sigmoid", name="gate")(x)
    pooled = layers.AveragePooling2D(2, name="mean")(layers.MaxPooling2D(2, name="max")(gate))
    found = plan(
        keras.Model(x, pooled),
        fixed_range={"sigmoid": (0.0, 255 / 256)},
        tied_range=frozenset({"average_pooling2d"}),
    )
    assert found.fixed == dict.fromkeys(["gate", "mean"], (0.0, 255 / 256))
    assert found.groups == {}


def test_a_fixed_range_never_moves():
    x = image()
    y = layers.Activation("softmax", name="soft")(layers.Conv2D(4, 1, name="conv")(x))
    target = replace(PLAIN, fixed_range={"softmax": (0.0, 255 / 256)})
    model = quantize(*_planned(keras.Model(x, y), target))
    data = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    tfqat.calibrate(model, data)
    layer = model.get_layer("soft>quantizer")
    before = layer.encoding()
    model(data, training=True)
    assert layer.encoding() == before
    assert (float(before.scale), int(before.zero_point)) == (1 / 256, -128)


def test_a_tied_range_is_that_of_the_input():
    x = image()
    pooled = layers.AveragePooling2D(2, name="mean")(layers.ReLU(name="act")(layers.Conv2D(4, 1, name="conv")(x)))
    found = plan(keras.Model(x, pooled), tied_range=frozenset({"average_pooling2d"}))
    assert set(found.groups) == {"act", "mean"}
    assert {row.op: row.reason for row in found.rows}["mean"] == "rounded to the range of its input"
    model = quantize(*_planned(keras.Model(x, pooled), replace(PLAIN, tied_range=frozenset({"average_pooling2d"}))))
    tfqat.calibrate(model, np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32"))
    assert model.get_layer("act>quantizer").encoding() == model.get_layer("mean>quantizer").encoding()


def test_one_scale_a_kernel_folds_batch_norm_first():
    x = image()
    y = layers.BatchNormalization(name="norm", gamma_initializer="normal")(layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(x, layers.ReLU(name="act")(y))
    found = plan(model, per_tensor=frozenset({"conv2d"}))
    assert found.weights["conv"] == Scheme(narrow=True)
    assert found.changes == ("norm: folded into conv, whose kernel has one scale",)
    assert "norm" not in {row.op for row in found.rows}
    assert plan(model).changes == ()


def test_asymmetric_kernels_fold_first_too_and_round_as_numpy_does():
    x = image()
    lopsided = keras.initializers.RandomUniform(-0.1, 0.4, seed=0)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, kernel_initializer=lopsided, name="conv")(x))
    target = replace(PLAIN, weight=Scheme(symmetric=False), per_tensor=frozenset({"conv2d"}))
    model = quantize(*_planned(keras.Model(x, y), target))
    layer = model.get_layer("conv")
    kernel = np.array(layer.kernel)
    low, high = min(kernel.min(), 0), max(kernel.max(), 0)
    scale = np.float32((high - low) / 255)
    zero_point = np.rint(-128 - low / scale)
    expected = (np.clip(np.rint(kernel / scale) + zero_point, -128, 127) - zero_point) * scale
    data = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    tfqat.calibrate(model, data)
    final = tfqat.finalize(model)
    assert np.allclose(final.get_layer("conv").kernel, expected, atol=1e-7)
    assert int(final.get_layer("conv").kernel_encoding().zero_point) == zero_point != 0
    assert np.allclose(final(data), model(data, training=False), atol=1e-5)


def test_kinds_with_schemes_of_their_own():
    found = plan(
        gated(),
        own_range=PLAIN.own_range | {"sigmoid"},
        shared_range=frozenset(),
        activation_of={"sigmoid": UNSIGNED},
        weight_of={"conv2d": Scheme(bits=4)},
    )
    assert found.activations == {"image": ASYMMETRIC, "conv": ASYMMETRIC, "gate": UNSIGNED}
    assert found.weights == {"conv": Scheme(bits=4, axis=(-1,))}


def test_a_group_whose_members_would_differ_has_the_usual_scheme():
    found = plan(gated(), own_range=PLAIN.own_range | {"sigmoid"}, activation_of={"sigmoid": UNSIGNED})
    assert found.activations["gate"] == found.activations["conv"] == ASYMMETRIC


def test_nonnegative_tensors():
    x = image()
    y = layers.ReLU(name="act")(layers.Conv2D(4, 1, name="conv")(x))
    found = plan(keras.Model(x, layers.Conv2D(2, 1, name="last")(y)), nonnegative=UNSIGNED)
    assert found.activations == {"image": ASYMMETRIC, "act": UNSIGNED, "last": ASYMMETRIC}


def test_kinds_whose_output_is_left():
    x = image()
    y = layers.ReLU(name="act")(layers.Conv2D(4, 1, name="conv")(x))
    assert list(plan(keras.Model(x, y), unquantized=frozenset({"relu"})).activations) == ["image"]
    assert list(plan(keras.Model(x, y), quantized_inputs=False).activations) == ["act"]


def test_the_choice_of_activations():
    target = replace(PLAIN, activation_choices={"uint8": Scheme(signed=False, symmetric=False)})
    assert not with_activation(target, "uint8").activation.signed
    with pytest.raises(TfqatError, match=r"offers uint8, received 'uint16'. Did you mean 'uint8'"):
        with_activation(target, "uint16")
    with pytest.raises(TfqatError, match="offers no choice"):
        with_activation(PLAIN, "int8")


def test_a_placement_comes_back_from_its_dictionary():
    found = plan(gated(), fixed_range={"sigmoid": (0.0, 255 / 256)}, config={"defaults": {}})
    assert placement_from_dict(found.to_dict()) == found


def _planned(model, target):
    planned = plan_for(model, target, relu6=())
    return planned.graph, replace(planned.placement, target="sima")
