"""Cross-layer equalization: the float function stays, the channels get alike, and what is left has its reason."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import tfqat
from tfqat.errors import TfqatError

MODELS = ("depthwise_chain", "residual_net", "mobilenet")


def moved(model, other, x):
    """How far the outputs of two models are from each other, beside how large they are."""
    ours, theirs = np.array(other(x)), np.array(model(x))
    return np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12)


def planted(seed, octaves):
    generator = np.random.default_rng(seed)
    return lambda count: 2.0 ** generator.uniform(-octaves, octaves, count)


def folded(model, conv, norm):
    """The kernel (h, w, in, out) times its BatchNorm, by numpy."""
    conv, norm = model.get_layer(conv), model.get_layer(norm)
    gain = np.array(norm.gamma) / np.sqrt(np.array(norm.moving_variance) + norm.epsilon)
    kernel = np.array(conv.kernel)
    return kernel * (gain[:, None] if isinstance(conv, layers.DepthwiseConv2D) else gain)


@pytest.mark.parametrize("name", MODELS)
def test_the_float_function_stays(nets, name):
    made = getattr(nets, name)()

    @settings(max_examples=2 if name == "mobilenet" else 15, deadline=None)
    @given(seed=st.integers(0, 2**16), octaves=st.floats(2.0, 4.0))
    def check(seed, octaves):
        model = nets.spoil(made, planted(seed, octaves))
        before = [np.array(value) for value in model.variables]
        equalized, report = tfqat.equalize(model, relu6=())
        assert moved(model, equalized, nets.images(model)) < 1e-4
        assert report.changes
        # Something was there to do, and was done.
        assert np.mean([c.after for c in report.changes]) < 0.8 * np.mean([c.before for c in report.changes])
        for value, old in zip(model.variables, before, strict=True):
            assert np.array_equal(value, old)

    check()


def test_all_pairs_of_mobilenet_but_those_at_an_add(nets):
    """Depthwise -> project, expand -> depthwise, stem -> depthwise, two project -> expand, and the last to its head."""
    _, report = tfqat.equalize(nets.mobilenet(), relu6=())
    assert len(report.changes) == 17 + 16 + 1 + 2 + 1
    assert set(report.reasons()) == {
        "a scale does not pass add",
        "2 ops read the result",
        "a scale does not pass softmax",
    }


def test_both_kernels_end_with_the_same_range_in_each_channel(nets):
    """The definition, s = sqrt(r1 r2) / r2, by numpy on the weights of the new model."""
    model = nets.spoil(nets.depthwise_chain(), planted(1, 3))
    equalized, _ = tfqat.equalize(model, relu6=())
    conv, depthwise, point = (np.abs(folded(equalized, name, f"{name}_bn")) for name in ("conv", "depthwise", "point"))
    assert np.allclose(conv.max(axis=(0, 1, 2)), depthwise.max(axis=(0, 1, 3)), rtol=0.01)
    assert np.allclose(depthwise.max(axis=(0, 1, 3)), point.max(axis=(0, 1, 3)), rtol=0.01)
    point, depthwise = folded(model, "point", "point_bn"), folded(model, "depthwise", "depthwise_bn")
    uneven = np.abs(point).max(axis=(0, 1, 3)), np.abs(depthwise).max(axis=(0, 1, 3))
    assert not np.allclose(*uneven, rtol=0.5)


CHAINS = {
    "conv -> conv": [layers.Conv2D(5, 3, activation="relu"), layers.Conv2D(3, 3)],
    "leaky": [layers.Conv2D(5, 3), layers.LeakyReLU(0.2), layers.Dropout(0.5), layers.Conv2D(3, 3)],
    "prelu": [layers.Conv2D(5, 3), layers.PReLU(shared_axes=[1, 2]), layers.Conv2D(3, 3)],
    "pools": [layers.Conv2D(5, 3), layers.MaxPooling2D(), layers.AveragePooling2D(2), layers.Conv2D(3, 1)],
    "grouped": [layers.Conv2D(6, 3, activation="relu"), layers.Conv2D(4, 3, groups=2)],
    "grouped first": [layers.Conv2D(6, 3, groups=3, activation="relu"), layers.Conv2D(4, 3)],
    "multiplier": [layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"), layers.Conv2D(4, 3)],
    "two multipliers": [
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
    ],
    "transposed": [layers.Conv2DTranspose(5, 3, activation="relu"), layers.Conv2DTranspose(4, 3), layers.Conv2D(2, 3)],
    "no gamma": [layers.Conv2D(5, 3), layers.BatchNormalization(scale=False), layers.ReLU(), layers.Conv2D(3, 3)],
    "no beta": [layers.Conv2D(5, 3), layers.BatchNormalization(center=False), layers.ReLU(), layers.Conv2D(3, 3)],
    "upsampled": [layers.Conv2D(5, 3), layers.UpSampling2D(interpolation="bilinear"), layers.Conv2D(3, 3)],
    "pointwise dense": [layers.Conv2D(5, 3, activation="relu"), layers.Dense(7, activation="relu")],
}


@pytest.mark.parametrize("middle", CHAINS.values(), ids=CHAINS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_every_form_of_a_chain(nets, middle, seed):
    made = [type(layer).from_config(layer.get_config()) for layer in middle]
    model = nets.spoil(nets.chain(*made), planted(seed, 3))
    equalized, report = tfqat.equalize(model, relu6=())
    assert moved(model, equalized, nets.images(model)) < 1e-4
    assert len(report.changes) >= 2  # the chain's own, and the one to the head


def test_a_flattened_image(nets):
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(x))
    model = nets.spoil(keras.Model(inputs, layers.Dense(3, name="head")(x)), planted(0, 4))
    equalized, report = tfqat.equalize(model, relu6=())
    assert [change.where for change in report.changes] == ["conv -> head"]
    assert moved(model, equalized, nets.images(model)) < 1e-4
    first = np.abs(np.array(equalized.get_layer("conv").kernel)).max(axis=(0, 1, 2))
    second = np.abs(np.array(equalized.get_layer("head").kernel)).reshape(16, 4, 3).max(axis=(0, 2))
    assert np.allclose(first, second, rtol=0.01)


def test_a_dead_channel_is_left_alone(nets):
    model = nets.spoil(nets.depthwise_chain(), planted(0, 2))
    gamma = np.array(model.get_layer("conv_bn").gamma)
    gamma[2] = 0.0
    model.get_layer("conv_bn").gamma.assign(gamma)
    equalized, _ = tfqat.equalize(model, relu6=())
    assert moved(model, equalized, nets.images(model)) < 1e-4
    assert np.array(equalized.get_layer("conv_bn").beta)[2] == np.array(model.get_layer("conv_bn").beta)[2]


def twice():
    x = inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    x = layers.ReLU(name="a")(conv(x))
    x = layers.ReLU(name="b")(conv(x))
    x = layers.ReLU(name="c")(layers.Conv2D(4, 3, name="last")(x))
    return keras.Model(inputs, layers.Conv2D(2, 3, name="head")(x))


def branches():
    x = inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")(x)
    x = layers.ReLU()(layers.Conv2D(4, 3, name="last")(conv))
    return keras.Model(inputs, [layers.Conv2D(2, 3, name="head")(x), conv])


def capped():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(6.0, name="cap")(layers.Conv2D(4, 3, name="conv")(x))
    x = layers.ReLU(name="plain")(layers.Conv2D(4, 3, name="mid")(x))
    x = layers.Activation("silu")(layers.Conv2D(4, 3, name="last")(x))
    return keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))


# Name -> model, relu6, what is equalized, op -> why it is left.
LEFT = {
    "shared": (twice, (), ["last -> head"], {"conv": "used more than once", "conv/1": "used more than once"}),
    "model output": (branches, (), ["last -> head"], {"conv": "gives a model output"}),
    "relu6": (capped, (), ["mid -> last"], {"conv": "caps all channels at 6", "last": "does not pass silu"}),
}


@pytest.mark.parametrize(("make", "relu6", "pairs", "left"), LEFT.values(), ids=LEFT)
def test_what_is_left_and_why(nets, make, relu6, pairs, left):
    model = nets.spoil(make(), planted(0, 3))
    equalized, report = tfqat.equalize(model, relu6=relu6)
    assert [change.where for change in report.changes] == pairs
    for name, why in left.items():
        assert why in dict(report.left)[name]
        assert why in str(report)
    x = nets.images(model)
    for ours, theirs in zip(keras.tree.flatten(equalized(x)), keras.tree.flatten(model(x)), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_relu_that_becomes_relu6_keeps_its_place(nets):
    """After equalization ``prepare`` would cap other values than before, so there the pair is left."""
    with pytest.raises(TfqatError, match=r"(?s)no two layers.*conv: relu behind it becomes relu6 \(`relu6: \[\]`"):
        tfqat.equalize(capped_by_prepare(), relu6=("relu",))
    rules = [{"match": "act", "relu6": False}]
    _, report = tfqat.equalize(capped_by_prepare(), rules=rules)
    assert [change.where for change in report.changes] == ["conv -> head"]


def capped_by_prepare():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="act")(layers.Conv2D(4, 3, name="conv")(x))
    return keras.Model(inputs, layers.Conv2D(2, 3, name="head")(x))


def test_a_prepared_model_is_refused(nets):
    with pytest.raises(TfqatError, match="equalize the float model"):
        tfqat.equalize(tfqat.prepare(nets.depthwise_chain()))


def unbalanced(nets):
    """A model whose channels were even, until scales were moved between its kernels: the same function."""
    model = nets.spoil(nets.depthwise_chain(), np.ones)
    scales = planted(3, 5)(6)
    norm, depthwise = model.get_layer("conv_bn"), model.get_layer("depthwise")
    norm.gamma.assign(np.array(norm.gamma) * scales)
    norm.beta.assign(np.array(norm.beta) * scales)
    depthwise.kernel.assign(np.array(depthwise.kernel) / scales[:, None])
    return model


def test_int8_is_nearer_to_the_float_model(nets):
    """One scale for all channels of an activation: the small ones drown in it, equalized ones do not."""
    model = unbalanced(nets)
    equalized, _ = tfqat.equalize(model, relu6=())
    x = nets.images(model, 32)
    errors = []
    for given_model in (model, equalized):
        qat = tfqat.prepare(given_model, relu6=())
        tfqat.calibrate(qat, x, method="minmax")
        errors.append(np.square(np.array(qat(x)) - np.array(model(x))).mean())
    assert errors[1] < 0.2 * errors[0]
