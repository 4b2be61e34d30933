"""Methods on the prepared model: judged by Keras' own models and numpy, from the outside."""

from typing import get_args

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.rewrite.model import batch_norm_layers
from tfqat.spec.schema import Quantization
from tfqat.tuning.tune import METHODS


def prepared(model, x, **options):
    qat = tfqat.prepare(model, relu6=(), **options)
    tfqat.calibrate(qat, x, method="minmax")
    return qat


def plain_net():
    """Biases and no BatchNorm."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu1")(layers.Conv2D(6, 3, name="first")(x))
    x = layers.ReLU(name="relu2")(layers.DepthwiseConv2D(3, depth_multiplier=2, name="second")(x))
    x = layers.Conv2D(5, 1, name="third")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(layers.ReLU(name="act")(x))))


def with_coarse_kernels(model):
    """Kernels whose channels have one weight so large that the others are rounded to a few steps, all one way."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            kernel = generator.uniform(0.9, 1.4, layer.kernel.shape) * 0.02
            kernel[0, 0, 0] = 4.0
            layer.kernel.assign(kernel)
    return model


def means(model, tensor, x):
    """The mean of each channel of a layer's output, by a Keras model of its own."""
    inner = keras.Model(model.inputs, model.get_layer(tensor).output)
    return np.array(inner([x])).reshape(-1, inner.output_shape[-1]).mean(axis=0)


# Model -> layer whose output is the pre-activation of each kernel.
BLOCKS = {
    "plain": (plain_net, {"first": "first", "second": "second", "third": "third"}),
    "batch norm": (
        "depthwise_chain",
        {"conv": "conv_bn", "depthwise": "depthwise_bn", "point": "point_bn"},
    ),
}


@pytest.mark.parametrize(("make", "blocks"), BLOCKS.values(), ids=BLOCKS)
def test_bias_correction_restores_the_mean_of_each_channel(nets, make, blocks):
    model = nets.spoil(make() if callable(make) else getattr(nets, make)(), np.ones)
    x = nets.images(with_coarse_kernels(model), 64)
    qat = prepared(model, x)
    wanted = {op: means(model, tensor, x) for op, tensor in blocks.items()}
    before = {op: np.abs(means(qat, tensor, x) - wanted[op]).max() for op, tensor in blocks.items()}
    (report,) = tfqat.tune(qat, ["bias_correction"], x)
    after = {op: np.abs(means(qat, tensor, x) - wanted[op]).max() for op, tensor in blocks.items()}
    assert max(before.values()) > 1e-2
    for op in blocks:
        # What the last bits of float32 leave: later blocks see rounding at ties turn out differently.
        assert after[op] < max(0.02 * before[op], 1e-4)
    assert {change.where for change in report.changes} >= set(blocks)
    for change in report.changes:
        assert change.after <= change.before


def test_bias_correction_says_what_has_no_bias(nets):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="act")(layers.Conv2D(4, 3, use_bias=False, name="bare")(x))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.ReLU(name="b")(shared(layers.ReLU(name="a")(shared(x))))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)))
    x = nets.images(model, 8)
    (report,) = tfqat.tune(prepared(model, x), ["bias_correction"], x)
    reasons = dict(report.left)
    assert reasons["bare"] == "has no bias and no BatchNorm to take it"
    assert "more than once" in reasons["shared"]
    assert "left: bare" in str(report)


def test_a_nested_model_and_its_reference_have_the_same_names(zoo):
    model = zoo.nested()
    qat = tfqat.prepare(model)
    x = zoo.data(model)
    tfqat.calibrate(qat, x)
    (report,) = tfqat.tune(qat, ["bias_correction"], x)
    assert "more than once" in dict(report.left)["block/inner/conv"]


def test_batch_norm_statistics_become_those_of_the_images(nets):
    """Judged by Keras in training with momentum 0, which leaves each BatchNorm with the statistics of one batch."""
    model = nets.spoil(nets.depthwise_chain(), np.ones)
    x = nets.images(model, 64)
    qat = prepared(model, x)
    for norm in batch_norm_layers(qat):
        norm.moving_mean.assign(np.array(norm.moving_mean) + 1.0)
        norm.moving_variance.assign(np.array(norm.moving_variance) * 3.0)
    (report,) = tfqat.tune(qat, ["batch_norm"], x)
    found = [(np.array(norm.moving_mean), np.array(norm.moving_variance)) for norm in batch_norm_layers(qat)]
    tfqat.freeze(qat)
    for norm in batch_norm_layers(qat):
        norm.momentum = 0.0
        norm.frozen.assign(0.0)
    qat(x, training=True)
    for norm, (mean, variance) in zip(batch_norm_layers(qat), found, strict=True):
        assert np.allclose(mean, norm.moving_mean, atol=2e-3)
        assert np.allclose(variance, norm.moving_variance, rtol=2e-2)
    assert [change.where for change in report.changes] == ["conv_bn", "depthwise_bn", "point_bn"]
    assert all(change.before > 0.3 and change.after < 1e-3 for change in report.changes)


def test_statistics_that_were_frozen_stay(nets):
    model = nets.spoil(nets.depthwise_chain(), np.ones)
    model.get_layer("conv_bn").trainable = False
    x = nets.images(model, 8)
    qat = prepared(model, x)
    batch_norm_layers(qat)[1].freeze()
    before = [np.array(norm.moving_mean) for norm in batch_norm_layers(qat)]
    (report,) = tfqat.tune(qat, ["batch_norm"], x + 1.0)
    moved = [
        not np.array_equal(old, norm.moving_mean) for old, norm in zip(before, batch_norm_layers(qat), strict=True)
    ]
    assert moved == [False, False, True]
    assert report.left == (("conv_bn", "trainable is false"), ("depthwise_bn", "it is frozen"))


def test_a_second_method_aims_at_the_same_float_model(nets):
    """Were the reference taken anew, the second correction would have nothing to correct."""
    model = with_coarse_kernels(nets.spoil(nets.depthwise_chain(), np.ones))
    x = nets.images(model, 32)
    for name in ("conv_bn", "depthwise_bn", "point_bn"):
        norm = model.get_layer(name)
        norm.moving_mean.assign(np.array(norm.moving_mean) + 0.5 * np.sqrt(norm.moving_variance))
    qat = prepared(model, x)
    wanted, before = means(model, "point_bn", x), means(qat, "point_bn", x)
    reports = tfqat.tune(qat, ["batch_norm", "bias_correction"], x)
    assert [report.method for report in reports] == ["batch_norm", "bias_correction"]
    assert np.abs(means(qat, "point_bn", x) - wanted).max() < 0.02 * np.abs(before - wanted).max()
    assert max(change.before for change in reports[1].changes) > 0.3


WRONG = {
    "unknown": (
        {"methods": ["bias_corection"]},
        r"bias_correction, batch_norm.*received 'bias_corection'.*Did you mean",
    ),
    "twice": ({"methods": ["batch_norm", "batch_norm"]}, "batch_norm more than once"),
    "float method": ({"methods": ["equalize"]}, r"float model: prepare what tfqat.equalize"),
    "no images": ({"dataset": []}, "at least one batch"),
    "number": ({"images": 0}, "images: expected at least 1"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_wrong_calls(nets, given, message):
    model = nets.depthwise_chain()
    x = nets.images(model)
    with pytest.raises(TfqatError, match=f"(?s){message}"):
        tfqat.tune(prepared(model, x), **{"methods": ["batch_norm"], "dataset": x, **given})


def test_a_spec_may_name_the_same_methods():
    entry, _ = get_args(Quantization.model_fields["tune"].annotation)
    assert set(get_args(entry)) == {"equalize", *METHODS}


def test_wrong_models(nets):
    model = nets.depthwise_chain()
    x = nets.images(model)
    for wrong, message in (
        (model, "the one that tfqat.prepare returned"),
        (tfqat.prepare(model), "run tfqat.calibrate first"),
        (tfqat.finalize(prepared(model, x)), "is finalized"),
    ):
        with pytest.raises(TfqatError, match=message):
            tfqat.tune(wrong, ["batch_norm"], x)


def test_what_was_tuned_is_saved_and_trains(nets, tmp_path):
    model = nets.depthwise_chain()
    x = nets.images(model, 32)
    qat = prepared(model, x)
    tfqat.tune(qat, ["bias_correction", "batch_norm"], x)
    qat.save(tmp_path / "tuned.keras")
    again = keras.models.load_model(tmp_path / "tuned.keras")
    assert np.array_equal(again(x), qat(x))
    qat.compile(keras.optimizers.SGD(0.01), "mse")
    loss = qat.fit(x, np.full((32, 4), 5.0), epochs=3, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
