"""AdaRound: its matrices against Keras' own convolutions, its error against Keras' outputs, and what it gains."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.core.scheme import Scheme
from tfqat.graph.kinds import KERNEL_AXES
from tfqat.rewrite.kernels import QUANTIZED_LAYERS
from tfqat.tuning.adaround import round_adaptively
from tfqat.tuning.patches import as_kernel, as_matrices, patches
from tfqat.tuning.rounding import Grid, Target, learn_rounding
from tfqat.tuning.subject import Subject
from tfqat.view.view import view

FORMS = {
    "dense": (layers.Dense(4), (5,)),
    "dense of an image": (layers.Dense(4), (3, 3, 5)),
    "same": (layers.Conv2D(4, 3, padding="same"), (7, 6, 3)),
    "strided": (layers.Conv2D(4, (3, 2), strides=2, padding="same"), (7, 8, 3)),
    "dilated": (layers.Conv2D(4, 3, dilation_rate=2), (9, 9, 3)),
    "grouped": (layers.Conv2D(6, 3, groups=2), (6, 6, 4)),
    "causal": (layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 3)),
    "volume": (layers.Conv3D(4, 2, padding="same"), (4, 5, 4, 2)),
    "depthwise": (layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same"), (7, 7, 3)),
    "depthwise 1d": (layers.DepthwiseConv1D(3, depth_multiplier=2), (7, 3)),
}


@pytest.mark.parametrize(("layer", "shape"), FORMS.values(), ids=FORMS)
def test_patches_times_matrices_is_the_convolution(layer, shape):
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    (op,) = view(model).ops
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    wanted = np.array(model(x)).reshape(-1, model.output_shape[-1])
    matrices = as_matrices(op, np.array(layer.kernel))
    places = np.arange(len(wanted))[::2]
    found = np.einsum("ngk,gko->ngo", patches(op, x, places), matrices).reshape(len(places), -1)
    assert np.allclose(found, wanted[places], atol=1e-5)  # biases are 0
    assert np.array_equal(as_kernel(op, matrices), layer.kernel)


def test_it_is_near_the_best_of_all_roundings():
    """Eight weights, two of them at the ends of the grid: all others are tried both ways."""
    generator = np.random.default_rng(0)
    gaps = []
    for _ in range(10):
        kernel = generator.normal(size=(1, 8, 1))
        x = generator.normal(size=(200, 8)) @ generator.normal(size=(8, 8))
        t = x @ kernel[0]
        target = Target((x.T @ x / 200)[None], (x.T @ t / 200)[None], np.square(t).mean(axis=0)[None])
        grid = Grid(np.abs(kernel).max(keepdims=True) / 7, -7, 7)
        low = np.floor(kernel / grid.scale)
        tried = [np.clip(low + np.reshape(up, kernel.shape), -7, 7) for up in itertools.product((0, 1), repeat=8)]
        best = min(np.square(x @ (q * grid.scale)[0] - t).mean() for q in tried)
        learned, nearest = (
            np.square(x @ (q * grid.scale)[0] - t).mean()
            for q in (learn_rounding(kernel, grid, target), grid.nearest(kernel))
        )
        assert learned <= nearest
        assert learned == pytest.approx(target.error(learn_rounding(kernel, grid, target) * grid.scale).item())
        gaps.append((learned - best) / (nearest - best + 1e-12))
    assert np.mean(gaps) < 0.5


def quantized_net(bits, *kinds):
    """A model of hand-built quantized layers and its float twin, on inputs whose channels go together."""
    x = y = inputs = keras.Input((8, 8, 6), name="image")
    config = {"conv2d": {"filters": 8, "kernel_size": 3}, "depthwise_conv2d": {"kernel_size": 3}, "dense": {"units": 8}}
    pairs = []
    for number, kind in enumerate(kinds):
        cls, scheme = QUANTIZED_LAYERS[kind], Scheme(bits=bits, narrow=True, axis=KERNEL_AXES[kind])
        rounded = cls(weight_scheme=scheme, name=f"{kind}{number}", **config[kind])
        stock = cls.__mro__[2](name=f"{kind}{number}", **config[kind])
        x, y = layers.ReLU()(rounded(x)), layers.ReLU()(stock(y))
        pairs.append((rounded, stock))
    for rounded, stock in pairs:
        stock.set_weights(rounded.get_weights())
    return keras.Model(inputs, x), keras.Model(inputs, y)


@pytest.mark.parametrize(
    "kinds", [("conv2d", "dense"), ("dense", "conv2d", "dense"), ("conv2d", "depthwise_conv2d", "conv2d")], ids=" ".join
)
@pytest.mark.parametrize("bits", [3, 4])
def test_coarse_kernels_lose_less_of_the_output(kinds, bits):
    rounded, exact = quantized_net(bits, *kinds)
    generator = np.random.default_rng(1)
    mixed = (generator.normal(size=(320, 8, 8, 6)) + 0.5) @ generator.normal(size=(6, 6))
    x, held_out = np.float32(mixed[:256]), np.float32(mixed[256:])
    before = np.square(np.array(rounded(held_out)) - np.array(exact(held_out))).mean()
    graph = view(rounded)
    report = round_adaptively(Subject(graph, [{"image": x}]))
    after = np.square(np.array(rounded(held_out)) - np.array(exact(held_out))).mean()
    assert all(change.after < change.before for change in report.changes)
    assert len(report.changes) == len(kinds)
    assert after < 0.7 * before


@pytest.mark.parametrize("options", [{}, {"ranges": "learned"}, {"target": "tflite"}], ids=str)
def test_the_kernels_round_to_the_chosen_integers(nets, options):
    """By the layer's own scale as it stands before and after: max|w| / qmax, or the learned one."""
    model = nets.spoil(nets.depthwise_chain(), np.ones)
    x = nets.images(model, 32)
    qat = tfqat.prepare(model, relu6=(), **options)
    tfqat.calibrate(qat, x, method="minmax")
    names = ("conv", "depthwise", "point")
    scales = [qat.get_layer(name).kernel_encoding().scale for name in names]
    old = [np.array(qat.get_layer(name).kernel) for name in names]
    (report,) = tfqat.tune(qat, ["adaround"], x)
    assert all(change.after <= change.before for change in report.changes)
    for name, scale, before in zip(names, scales, old, strict=True):
        encoding, kernel = qat.get_layer(name).kernel_encoding(), np.array(qat.get_layer(name).kernel)
        np.testing.assert_allclose(encoding.scale, scale, rtol=1e-6)
        np.testing.assert_allclose(encoding.fake_quantize(kernel), kernel, rtol=1e-5, atol=1e-9)
        spread = np.abs(kernel - before) / scale.reshape([-1, 1] if name == "depthwise" else [-1])
        assert 0.5 < spread.max() < 1.01  # up or down, some not to the nearest
    final = tfqat.finalize(qat)
    assert np.allclose(final(x), qat(x), atol=0.05 * np.abs(qat(x)).max())


def test_after_another_method_it_aims_at_the_same_output(nets):
    """Bias correction has moved the BatchNorm's mean; the kernel's own target moves the other way."""
    model = nets.spoil(nets.depthwise_chain(), np.ones)
    x = nets.images(model, 64)
    errors = []
    for methods in (["adaround"], ["bias_correction", "adaround"], ["adaround", "bias_correction"]):
        qat = tfqat.prepare(model, relu6=())
        tfqat.calibrate(qat, x, method="minmax")
        tfqat.tune(qat, methods, x)
        errors.append(np.square(np.array(qat(x)) - np.array(model(x))).mean())
    assert errors[1] < 1.5 * errors[0]
    assert errors[2] < 1.5 * errors[0]


def test_what_it_does_not_know(nets):
    x = inputs = keras.Input((6, 6, 3), name="image")
    x = layers.ReLU(name="act")(layers.Conv2DTranspose(4, 3, name="up")(x))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))
    x = nets.images(model)
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, x)
    (report,) = tfqat.tune(qat, ["adaround"], x)
    assert report.left == (("up", "adaround knows no conv2d_transpose"),)
