"""Quantized layers: constructors and results against Keras' own, kernels against numpy."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfqat.core.encoding import Encoding, encoding_of_least_error, encoding_of_values
from tfqat.core.scheme import Scheme
from tfqat.graph.kinds import KERNEL_AXES
from tfqat.rewrite.kernels import QUANTIZED_LAYERS, QuantDense

CONV, TRANSPOSE, DEPTHWISE = {"filters": 4, "kernel_size": 3}, {"filters": 3, "kernel_size": 3}, {"kernel_size": 3}
STEPS, IMAGE, VOLUME = (2, 8, 4), (2, 8, 8, 4), (2, 5, 6, 4, 4)
# Name -> kind, constructor arguments, shape of the input.
CASES = {
    "conv 1d": ("conv1d", {**CONV, "strides": 2}, STEPS),
    "conv 1d, causal": ("conv1d", {**CONV, "padding": "causal", "dilation_rate": 2}, STEPS),
    "conv": ("conv2d", {**CONV, "strides": 2}, IMAGE),
    "grouped conv": ("conv2d", {**CONV, "groups": 2}, IMAGE),
    "conv 3d": ("conv3d", {**CONV, "padding": "same"}, VOLUME),
    "depthwise 1d": ("depthwise_conv1d", {**DEPTHWISE, "depth_multiplier": 2}, STEPS),
    "depthwise": ("depthwise_conv2d", {**DEPTHWISE, "depth_multiplier": 2}, IMAGE),
    "transpose 1d": ("conv1d_transpose", TRANSPOSE, STEPS),
    "transpose": ("conv2d_transpose", TRANSPOSE, IMAGE),
    "transpose 3d": ("conv3d_transpose", TRANSPOSE, VOLUME),
    "dense": ("dense", {"units": 5}, IMAGE),
    "dense of a vector": ("dense", {"units": 5}, (2, 4)),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    kind, config, shape = request.param
    keras.utils.set_random_seed(1)
    scheme = Scheme(narrow=True, axis=KERNEL_AXES[kind])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    cls = QUANTIZED_LAYERS[kind]
    layer, twin = cls(weight_scheme=scheme, **config), cls.__mro__[2](**config)
    layer.build(x.shape)
    twin.build(x.shape)
    return layer, twin, scheme, x


def test_output_is_that_of_the_stock_layer_with_the_rounded_kernel(case):
    layer, twin, scheme, x = case
    kernel = np.array(layer.weights[0])
    twin.set_weights([encoding_of_values(scheme, kernel).fake_quantize(kernel), np.array(layer.weights[1])])
    assert np.allclose(layer(x), twin(x), rtol=1e-5, atol=1e-6)


def test_the_stored_kernel_stays_float(case):
    layer, _, _, x = case
    before = np.array(layer.weights[0])
    layer(x)
    assert np.array_equal(layer.weights[0], before)
    assert np.array_equal(layer.kernel, before)


def test_the_flag_is_reset_when_the_call_fails(case):
    layer = case[0]
    with pytest.raises(Exception, match=r".+"):
        layer(np.zeros((*case[3].shape[:-1], 5), "float32"))
    assert np.array_equal(layer.kernel, layer.weights[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="GradientTape is TensorFlow's")
def test_the_kernels_gradient_passes_straight_through(case):
    import tensorflow as tf

    layer, twin, scheme, x = case
    kernel = np.array(layer.weights[0])
    twin.set_weights([encoding_of_values(scheme, kernel).fake_quantize(kernel), np.array(layer.weights[1])])
    gradients = []
    for one in (layer, twin):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(one(x) ** 2)
        gradients.append(tape.gradient(loss, one.trainable_weights[0].value))
    assert np.allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_config_and_weights_round_trip(case):
    layer, _, _, x = case
    again = type(layer).from_config(layer.get_config())
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    assert np.array_equal(again(x), layer(x))


def test_a_dead_channel_stays_zero():
    layer = QuantDense(3, weight_scheme=Scheme(narrow=True, axis=(-1,)))
    layer.build((None, 2))
    layer.set_weights([np.float32([[1, 0, 2], [1, 0, 2]]), np.zeros(3, "float32")])
    assert np.array_equal(layer(np.ones((1, 2), "float32")), [[2, 0, 4]])


def test_each_kind_with_channel_axes_has_a_quantized_layer_that_is_tried_here():
    assert set(QUANTIZED_LAYERS) == set(KERNEL_AXES) == {kind for kind, _, _ in CASES.values()}


@pytest.mark.parametrize("cls", QUANTIZED_LAYERS.values())
def test_every_argument_of_the_stock_layer_is_taken(cls):
    stock = cls.__mro__[2]
    parameters = inspect.signature(stock.__init__).parameters
    required = {"filters": 2, "kernel_size": 3, "units": 2}
    given = {name: required.get(name, parameter.default) for name, parameter in parameters.items()}
    given = {name: value for name, value in given.items() if name not in ("self", "kwargs")}
    config = cls(weight_scheme=Scheme(axis=(-1,)), **given).get_config()
    assert stock(**given).get_config().keys() <= config.keys()


def test_mixed_precision_computes_in_its_own_type():
    layer = QuantDense(3, weight_scheme=Scheme(narrow=True, axis=(-1,)), dtype="mixed_bfloat16")
    assert str(ops.dtype(layer(np.ones((1, 2), "float32")))).endswith("bfloat16")


def test_a_held_scale_clips_and_stays(case):
    layer, twin, scheme, x = case
    held = type(layer).from_config({**layer.get_config(), "scale_by": "held"})
    held.build(x.shape)
    kernel = np.array(layer.weights[0])
    scale = encoding_of_values(scheme, kernel).scale * np.float32(0.5)
    held.weights[0].assign(kernel)
    held.hold_scale(scale)
    expected = Encoding(scheme, scale, np.zeros(scale.shape)).fake_quantize(kernel)
    twin.set_weights([expected, np.array(held.weights[1])])
    assert np.abs(expected - kernel).max() > scale.min()  # some are clipped
    assert np.allclose(held(x), twin(x), rtol=1e-5, atol=1e-6)
    assert held.kernel_encoding().origin == "imported"
    assert np.array_equal(held.kernel_encoding().scale, scale)


def test_a_held_scale_passes_the_gradient_of_weights_that_it_does_not_clip():
    layer = QuantDense(3, weight_scheme=Scheme(narrow=True, axis=(-1,)), scale_by="held")
    layer.build((None, 2))
    layer.weights[0].assign(np.array([[0.1, 0.5, 2.0], [0.2, 3.0, 0.3]]))
    layer.hold_scale(np.float32(1 / 127))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.ones((1, 2))))
    gradient = tape.gradient(total, layer.weights[0].value)
    assert np.array_equal(gradient, [[1, 1, 0], [1, 0, 1]])


LEARNED = Scheme(bits=4, narrow=True, axis=(-1,))


def learning(kernel, scale):
    layer = QuantDense(kernel.shape[1], weight_scheme=LEARNED, scale_by="learned", use_bias=False)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, scale * 7, np.zeros_like(scale)])
    return layer


def test_a_learned_scale_gets_the_gradient_of_lsq():
    generator = np.random.default_rng(0)
    kernel, weights = generator.normal(size=(2, 6, 3)).astype("float32")
    scale = np.abs(kernel).max(axis=0) * np.array([0.5, 0.8, 1.05], "float32") / 7
    layer = learning(kernel, scale)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.eye(6)) * weights)
    by_kernel, by_extent = tape.gradient(loss, [v.value for v in layer.trainable_weights])
    ratio = kernel / scale
    inside = np.abs(ratio) < 7
    closed = np.where(inside, np.rint(ratio) - ratio, np.sign(ratio) * 7)
    by_scale = (closed * weights).sum(axis=0) / np.sqrt(6 * 7)
    np.testing.assert_allclose(by_extent, by_scale / 7, rtol=1e-4)  # the extent is seven times the scale
    np.testing.assert_allclose(by_kernel, np.where(inside, weights, 0), rtol=1e-6)
    assert not inside.all()


def test_the_gradient_of_a_learned_scale_is_the_slope_of_its_surrogate():
    """The surrogate: what rounding added stays as it was, and all else follows the scale."""
    generator = np.random.default_rng(1)
    kernel, weights = generator.normal(size=(2, 5, 3))
    scale = np.abs(kernel).max(axis=0) * [0.5, 0.8, 1.05] / 7
    added = np.rint(np.clip(kernel / scale, -7, 7)) - np.clip(kernel / scale, -7, 7)
    surrogate = lambda s: ((np.clip(kernel / s, -7, 7) + added) * s * weights).sum(axis=0)  # noqa: E731
    slope = (surrogate(scale + 1e-6) - surrogate(scale - 1e-6)) / 2e-6
    layer = learning(kernel.astype("float32"), scale.astype("float32"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.eye(5)) * weights.astype("float32"))
    received = tape.gradient(loss, layer.kernel_extent.value) * 7
    np.testing.assert_allclose(received, slope / np.sqrt(5 * 7), rtol=1e-3, atol=1e-5)


def test_a_frozen_scale_stays_whatever_the_optimizer_does():
    layer = learning(np.ones((2, 2), "float32"), np.array([0.1, 0.15], "float32"))
    layer.freeze_scale()
    layer.kernel_extent.assign([9.0, 9.0])
    np.testing.assert_allclose(layer.kernel_encoding().scale, [0.1, 0.15], rtol=1e-6)
    np.testing.assert_allclose(layer(np.eye(2, dtype="float32")), [[0.7, 1.05], [0.7, 1.05]], rtol=1e-6)
    # Frozen again while a kernel is small, it has the same scale when the weights are back.
    layer._kernel.assign(np.full((2, 2), 0.1, "float32"))
    layer.freeze_scale()
    layer._kernel.assign(np.ones((2, 2), "float32"))
    np.testing.assert_allclose(layer.kernel_encoding().scale, [0.1, 0.15], rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_encoding_of_least_error_is_not_worse_than_any_of_a_fine_search(bits):
    scheme = Scheme(bits=bits, narrow=True, axis=(-1,))
    values = np.random.default_rng(0).normal(size=(500, 3)).astype("float32") * np.array([1.0, 3.0, 0.01], "float32")
    chosen = encoding_of_least_error(scheme, values)
    widest = encoding_of_values(scheme, values)
    error = lambda encoding: np.square(encoding.fake_quantize(values) - values).sum(axis=0)  # noqa: E731
    searched = [
        error(Encoding(scheme, widest.scale * np.float32(share), widest.zero_point))
        for share in np.linspace(0.1, 1, 300)
    ]
    assert (error(chosen) <= np.min(searched, axis=0) * (1.06 if bits < 8 else 1.2)).all()
