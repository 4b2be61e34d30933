"""Learned ranges: gradients against LSQ's closed form and finite differences of the surrogate, written out in numpy."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfqat
from tfqat.core.encoding import encoding_of_range
from tfqat.core.scheme import Scheme, scale_and_zero_point
from tfqat.errors import TfqatError
from tfqat.rewrite.learned import (
    LARGEST,
    _plain,
    coarsest_scale,
    fake_quantize_kernel_learned,
    fake_quantize_learned,
    fake_quantize_relu6_learned,
    learned_extent,
)
from tfqat.rewrite.model import kernel_layers, range_layers
from tfqat.rewrite.quantizer import Quantizer

SYMMETRIC = {
    "8 bits": (Scheme(), 1.3),
    "4 bits": (Scheme(bits=4), 1.3),
    "3 bits": (Scheme(bits=3), 0.8),
    "2 bits": (Scheme(bits=2), 0.8),
    "2 bits, narrow": (Scheme(bits=2, narrow=True), 0.8),
    "unsigned": (Scheme(signed=False), 0.8),
    "everything clipped": (Scheme(bits=4), 1e-3),
    "nothing clipped": (Scheme(bits=4), 9.0),
}


def drawn(seed=0, shape=(40, 30)):
    """Values and what comes from above; correlated, so that the sum over all is large against that of rounding."""
    values, upstream = np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")
    return values, upstream + 0.5 * values


def gradients(function, values, extent, scheme, upstream):
    values, extent = tf.constant(values), tf.constant(np.atleast_1d(np.float32(extent)))
    with tf.GradientTape() as tape:
        tape.watch([values, extent])
        loss = tf.reduce_sum(function(values, extent, scheme) * upstream)
    return [gradient.numpy() for gradient in tape.gradient(loss, [values, extent])]


def slope(function, at, step=1e-6):
    """Central differences of ``function`` in each number of ``at``, float64."""
    at = np.atleast_1d(np.float64(at))
    steps = np.eye(len(at)) * step
    return np.array([(function(at + s) - function(at - s)) / (2 * step) for s in steps])


ABSORBING = {name: case for name, case in SYMMETRIC.items() if name in ("8 bits", "3 bits", "everything clipped")}


@pytest.mark.parametrize(
    ("case", "relu6"),
    [(case, False) for case in SYMMETRIC.values()] + [(case, True) for case in ABSORBING.values()],
    ids=[*SYMMETRIC, *(f"{name} after relu6" for name in ABSORBING)],
)
def test_the_gradient_is_lsqs(case, relu6):
    scheme, extent = case
    values, upstream = drawn()
    values *= 4 if relu6 else 1  # some beyond 6
    function = fake_quantize_relu6_learned if relu6 else fake_quantize_learned
    by_values, by_extent = gradients(function, values, extent, scheme, upstream)
    seen = np.clip(values, 0, 6) if relu6 else values
    ratio = seen.astype(np.float64) / (extent / scheme.qmax)
    inside = (ratio >= scheme.qmin) & (ratio <= scheme.qmax)
    by_scale = np.where(inside, np.rint(ratio) - ratio, np.clip(ratio, scheme.qmin, scheme.qmax))
    closed = (by_scale * upstream).sum() / np.sqrt(values.size * scheme.qmax) / scheme.qmax
    np.testing.assert_allclose(by_extent, [closed], rtol=2e-3, atol=1e-6)
    passes = inside & ((values > 0) & (values < 6) if relu6 else True)
    np.testing.assert_array_equal(by_values, np.where(passes, upstream, 0))


@pytest.mark.parametrize("case", SYMMETRIC.values(), ids=SYMMETRIC)
@pytest.mark.parametrize("function", [fake_quantize_learned, _plain], ids=["fused", "plain"])
def test_the_gradient_is_the_slope_of_the_surrogate(function, case):
    """The surrogate: what rounding added stays as it was, and all else follows the scale."""
    scheme, extent = case
    values, upstream = drawn(1)
    clipped = lambda e: np.clip(values.astype(np.float64) / (e / scheme.qmax), scheme.qmin, scheme.qmax)  # noqa: E731
    added = np.rint(clipped(extent)) - clipped(extent)
    surrogate = lambda e: (((clipped(e[0]) + added) * e[0] / scheme.qmax) * upstream).sum()  # noqa: E731
    expected = slope(surrogate, extent) / np.sqrt(values.size * scheme.qmax)
    _, received = gradients(function, values, extent, scheme, upstream)
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-6)


ASYMMETRIC = {
    "uint8": (Scheme(signed=False, symmetric=False), (1.1, 1.9)),
    "int8": (Scheme(symmetric=False), (1.9, 0.3)),
    "4 bits": (Scheme(bits=4, symmetric=False), (0.3, 1.9)),
    "2 bits": (Scheme(bits=2, signed=False, symmetric=False), (0.3, 0.7)),
    "from zero": (Scheme(symmetric=False), (0.0, 1.9)),
    "up to zero": (Scheme(bits=4, symmetric=False), (1.1, 0.0)),
}


@pytest.mark.parametrize("case", ASYMMETRIC.values(), ids=ASYMMETRIC)
@pytest.mark.parametrize("function", [fake_quantize_learned, _plain], ids=["fused", "plain"])
def test_both_ends_get_lsq_pluss_gradient(function, case):
    """Against the paper's closed form for a step and an offset, carried over to the ends by the chain rule."""
    scheme, extent = case
    values, upstream = drawn()
    scale, zero_point = scale_and_zero_point(scheme, -extent[0], extent[1])
    ratio = values.astype(np.float64) / scale
    below, above = ratio < scheme.qmin - zero_point, ratio > scheme.qmax - zero_point
    residual = (np.rint(ratio) - ratio)[~below & ~above] @ upstream[~below & ~above].astype(np.float64)
    steps = scheme.qmax - scheme.qmin
    # Section 3.1, by s and b = low, with integers from 0 to steps: b moves what is clipped and nothing else.
    by_scale, by_offset = residual + steps * upstream[above].sum(), upstream[below].sum() + upstream[above].sum()
    by_high, by_low = by_scale / steps, by_offset - by_scale / steps
    _, received = gradients(function, values, extent, scheme, upstream)
    expected = np.array([-by_low, by_high]) / np.sqrt(values.size * steps)
    np.testing.assert_allclose(received, expected, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("case", ASYMMETRIC.values(), ids=ASYMMETRIC)
@pytest.mark.parametrize("function", [fake_quantize_learned, _plain], ids=["fused", "plain"])
def test_the_gradient_of_both_ends_is_the_slope_of_the_surrogate(function, case):
    """The surrogate: what rounding values and the zero point added stays, and all else follows the ends."""
    scheme, extent = case
    values, upstream = drawn(1)
    steps = scheme.qmax - scheme.qmin
    scale, zero_point = scale_and_zero_point(scheme, -extent[0], extent[1])
    nudged = (np.array([scheme.qmin, scheme.qmax]) - zero_point) * np.float64(scale)
    added = nudged - [-extent[0], extent[1]]
    clipped = lambda e: np.clip(values.astype(np.float64), -e[0] + added[0], e[1] + added[1])  # noqa: E731
    rounding = np.rint(clipped(extent) / scale) - clipped(extent) / scale
    surrogate = lambda e: ((clipped(e) + rounding * (e[0] + e[1]) / steps) * upstream).sum()  # noqa: E731
    expected = slope(surrogate, extent) / np.sqrt(values.size * steps)
    _, received = gradients(function, values, extent, scheme, upstream)
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("case", ASYMMETRIC.values(), ids=ASYMMETRIC)
@pytest.mark.parametrize("function", [fake_quantize_learned, _plain], ids=["fused", "plain"])
def test_zero_is_exact_between_learned_ends(function, case):
    scheme, _ = case
    for extent in np.random.default_rng(5).uniform(0, 2, (20, 2)).astype("float32"):
        received = function(tf.constant([0.0, 0.1, 9.0, -9.0]), tf.constant(extent), scheme).numpy()
        assert received[0] == 0.0
        encoding = encoding_of_range(scheme, -extent[0], extent[1])
        np.testing.assert_allclose(received[2:], encoding.fake_quantize(np.float32([9, -9])), atol=1e-6)


@pytest.mark.parametrize(("target", "file"), [("tflite", "tflite"), ("sima", "qdq_onnx"), ("tensorrt", "qdq_onnx")])
@pytest.mark.parametrize("net", ["conv_net", "concat"])
def test_a_model_learns_its_ranges_exports_and_verifies(zoo, tmp_path, target, file, net):
    keras.utils.set_random_seed(0)
    model = getattr(zoo, net)()
    qat, x = tfqat.prepare(model, target, ranges="learned"), zoo.data(model)
    tfqat.calibrate(qat, [x])
    learned = [layer for layer in range_layers(qat) if layer.ranges == "learned"]
    before = [np.array(layer.encoding().scale) for layer in learned]
    kernels = [layer.kernel_encoding().scale for layer in kernel_layers(qat)]
    qat.compile(keras.optimizers.Adam(0.003), "mse")
    y = np.random.default_rng(0).normal(size=model(x).shape)
    losses = qat.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all((layer.encoding().scale != old).all() for layer, old in zip(learned, before, strict=True))
    after = [layer.kernel_encoding().scale for layer in kernel_layers(qat)]
    assert all((new != old).all() for new, old in zip(after, kernels, strict=True))
    for layer in learned:
        if layer.group is not None:  # one range for the group, also after training
            assert layer.encoding() == next(o for o in learned if o.group == layer.group).encoding()
        if layer.nonnegative and not layer.scheme.symmetric:
            assert layer.encoding().zero_point == layer.scheme.qmin
    tfqat.export(qat, tmp_path, formats=[file])
    assert tfqat.verify(qat, tmp_path, x).passed


@pytest.mark.parametrize("loaded", [False, True], ids=["as made", "loaded"])
def test_ranges_and_kernels_stop_after_the_given_step(zoo, tmp_path, loaded):
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model, ranges="learned", freeze_after=2), zoo.data(model)
    tfqat.calibrate(qat, [x])
    if loaded:
        qat.save(tmp_path / "x.keras")
        qat = tfqat.load_model(tmp_path / "x.keras")
    qat.compile(keras.optimizers.Adam(0.01), "mse")
    y, read, kernels = np.ones(model(x).shape), [], []
    for _ in range(5):
        qat.fit(x, y, batch_size=len(x), verbose=0)
        read.append(np.array([layer.encoding().scale for layer in range_layers(qat)]))
        kernels.append(np.concatenate([layer.kernel_encoding().scale for layer in kernel_layers(qat)]))
    # The second step's move is the last: the third finds all stopped.
    assert (read[0] != read[1]).all()
    assert np.array_equal(read[1], read[2])
    assert np.array_equal(read[2], read[4])
    assert (kernels[0] != kernels[1]).all()
    frozen = np.concatenate([layer.frozen_scale for layer in kernel_layers(qat)])
    np.testing.assert_allclose(frozen, kernels[1], rtol=1e-6)  # compiled and step by step, the last bit may differ
    # Kernels go on learning, and no channel's scale is coarser than its largest weight allows.
    coarsest = [np.ravel(coarsest_scale(layer.kernel, layer.weight_scheme)) for layer in kernel_layers(qat)]
    np.testing.assert_allclose(kernels[4], np.minimum(frozen, np.concatenate(coarsest)), rtol=1e-6)


@pytest.mark.parametrize("target", ["tensorrt", "tflite"])
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_no_step_makes_a_range_empty_or_infinite(zoo, target, optimizer):
    """At a learning rate that throws ranges from one bound to the other, all scales stay normal numbers."""
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model, target, ranges="learned", ranges_rate_multiplier=1e30), zoo.data(model)
    tfqat.calibrate(qat, [x])
    qat.compile(optimizer(1e-3), "mse")
    extremes = []
    for _ in range(6):
        qat.fit(x, np.ones(model(x).shape), batch_size=len(x), verbose=0)
        for layer in (*range_layers(qat), *kernel_layers(qat)):
            encoding = layer.encoding() if layer in range_layers(qat) else layer.kernel_encoding()  # refuses others
            extremes += [encoding.scale.min(), encoding.scale.max()]
    assert np.isfinite(extremes).all()
    assert min(extremes) >= np.finfo(np.float32).tiny
    assert max(extremes) > 1e9 or min(extremes) < 1e-9  # hostile; to which bound depends on the weights: see below
    assert np.isfinite(qat(x)).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_a_range_that_is_thrown_to_either_bound_is_a_number(optimizer, symmetric):
    """Values beyond the range: it grows where a larger result is better, and shrinks where a smaller one is.

    Of an asymmetric range only the upper end is thrown: the lower one, at -0.5, stays.
    """
    least = 1e-9 if symmetric else 0.5001 / 255
    for wanted, reached in ((-1.0, lambda scale: scale > 1e9), (1.0, lambda scale: scale < least)):
        layer = Quantizer(Scheme(symmetric=symmetric), ranges="learned", rate_multiplier=1e30)
        layer.build((None, 4))
        layer.set_range([1.5] if symmetric else [0.5, 1.5])
        moving, x = optimizer(1e-3), tf.constant([[2.0, 3.0, 4.0, 5.0]])
        for _ in range(6):
            with tf.GradientTape() as tape:
                loss = wanted * tf.reduce_sum(layer(x, training=True))
            moving.apply([tape.gradient(loss, layer.extent.value)], [layer.extent])
            scale = layer.encoding().scale
            assert np.isfinite(scale)
            assert scale >= np.finfo(np.float32).tiny
            assert reached(scale)
            assert np.isfinite(layer(x)).all()


def test_a_batch_that_overflows_leaves_ranges_as_they_are():
    layer = Quantizer(Scheme(), ranges="learned")
    layer.build((None, 4))
    layer.set_range([1.5])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([[np.nan, np.inf, 1.0, 2.0]]), training=True) * np.float32(3e38))
    keras.optimizers.Adam(0.1).apply([tape.gradient(loss, layer.extent.value)], [layer.extent])
    assert np.array_equal(layer.own_extent(), np.float32([1.5]))


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.01, epsilon=1e-12),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-12),
}


def stepped(name, extents, slopes):
    """Three steps of an optimizer at ten times the rate, by hand, float64; weight decay at the rate of all weights."""
    extents, first, second = np.float64(extents), np.zeros(2), np.zeros(2)
    for step in (1, 2, 3):
        gradient = np.float64(slopes)
        if name in ("SGD", "momentum"):
            first = (0.9 if name == "momentum" else 0.0) * first + gradient
            extents = extents - 10 * 0.01 * first
            continue
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        if name == "AdamW":
            extents = extents * (1 - 0.01 * 0.1)
        extents = extents - 10 * 0.01 * (first / (1 - 0.9**step)) / np.sqrt(second / (1 - 0.999**step))
    return extents


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_extents_move_by_their_own_rate(name):
    slopes = np.float32([0.3, -0.02])  # what comes from above, so that it is the gradient of each extent
    layer = Quantizer(Scheme(symmetric=False), ranges="learned", rate_multiplier=10.0)
    layer.build((None, 4))
    layer.set_range([2.0, 3.0])
    assert np.array_equal(layer.own_extent(), np.float32([2, 3]))
    optimizer = OPTIMIZERS[name]()
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer.shared_extent() * slopes)
        optimizer.apply(tape.gradient(loss, [layer.extent.value]), [layer.extent])
    np.testing.assert_allclose(layer.own_extent(), stepped(name, [2.0, 3.0], slopes), rtol=1e-5)


def test_the_rate_of_ranges_and_kernels_is_asked_for_and_kept(zoo, tmp_path):
    x = zoo.data(zoo.conv_net())
    moves = {}
    for rate in (1.0, 100.0):
        keras.utils.set_random_seed(0)
        model = zoo.conv_net()
        qat = tfqat.prepare(model, ranges="learned", ranges_rate_multiplier=rate)
        tfqat.calibrate(qat, [x])
        before = [layer.encoding().scale for layer in range_layers(qat)]
        kernels = [layer.kernel_encoding().scale for layer in kernel_layers(qat)]
        qat.save(tmp_path / "x.keras")
        qat = tfqat.load_model(tmp_path / "x.keras")
        assert before == [layer.encoding().scale for layer in range_layers(qat)]
        qat.compile(keras.optimizers.Adam(1e-5), "mse")
        qat.fit(x, np.ones(model(x).shape), epochs=1, batch_size=len(x), verbose=0)
        after = [layer.encoding().scale for layer in range_layers(qat)]
        kernels_after = [layer.kernel_encoding().scale for layer in kernel_layers(qat)]
        moves[rate] = [
            *(np.subtract(after, before) * 127),
            *(np.concatenate(kernels_after) - np.concatenate(kernels)) * 127,
        ]
    moved = np.abs(moves[100.0]) > 1e-5  # those of the other are at the end of float32's digits
    assert moved.sum() > 3
    np.testing.assert_allclose(np.array(moves[1.0])[moved] * 100, np.array(moves[100.0])[moved], rtol=0.2, atol=1e-4)


def test_asymmetric_kernels_are_refused(zoo, tmp_path):
    (tmp_path / "uneven.json").write_text(
        json.dumps(
            {
                "defaults": {"ops": {"is_output_quantized": "True"}, "params": {"is_quantized": "True"}},
                "params": {"bias": {"is_quantized": "False"}},
                "op_type": {},
                "supergroups": [],
                "model_input": {"is_input_quantized": "True"},
                "model_output": {},
            }
        )
    )
    path = str(tmp_path / "uneven.json")
    assert not any(scheme.symmetric for scheme in tfqat.prepare(zoo.conv_net(), path).placement.weights.values())
    with pytest.raises(TfqatError, match=r"symmetric kernels; those of conv1.* are asymmetric.*moving_average"):
        tfqat.prepare(zoo.conv_net(), path, ranges="learned")


@pytest.mark.parametrize("function", [fake_quantize_learned, _plain], ids=["fused", "plain"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_training_computes_what_the_encoding_says_but_for_ties(function, bits):
    scheme = Scheme(bits=bits)
    values, _ = drawn(2)
    scale, _ = scale_and_zero_point(scheme, -1.1, 1.1)
    ratio = values / scale
    tie = np.abs(np.abs(ratio - np.rint(ratio)) - 0.5) < 1e-3
    expected = np.clip(np.rint(ratio), scheme.qmin, scheme.qmax) * scale
    received = function(tf.constant(values), tf.constant([1.1]), scheme).numpy()
    assert np.abs(received - expected)[~tie].max() < 1e-6
    assert np.abs(received - expected).max() < scale * 1.001


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("shape", "channels"), [((3, 3, 5, 2), (1, 1, 5, 2)), ((6, 4), (1, 4)), ((6, 4), (1, 1))])
def test_a_kernels_gradient_is_lsqs(bits, shape, channels):
    scheme = Scheme(bits=bits, narrow=True)
    kernel, upstream = drawn(3, shape)
    scale = np.random.default_rng(4).uniform(0.5, 2.0, channels).astype("float32") / scheme.qmax
    kernel_, scale_ = tf.constant(kernel), tf.constant(scale)
    with tf.GradientTape() as tape:
        tape.watch([kernel_, scale_])
        loss = tf.reduce_sum(fake_quantize_kernel_learned(kernel_, scale_, scheme) * upstream)
    by_kernel, by_scale = tape.gradient(loss, [kernel_, scale_])
    ratio = kernel.astype(np.float64) / scale
    inside = np.abs(ratio) <= scheme.qmax
    each = np.where(inside, np.rint(ratio) - ratio, np.sign(ratio) * scheme.qmax) * upstream
    others = tuple(axis for axis, size in enumerate(channels) if size == 1)
    closed = each.sum(axis=others, keepdims=True) / np.sqrt(kernel.size / scale.size * scheme.qmax)
    np.testing.assert_allclose(by_scale, closed, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(by_kernel, np.where(inside, upstream, 0))
    assert not inside.all()


@pytest.mark.parametrize(
    ("variable", "upstream", "extent", "gradient"),
    [
        (3.0, 1.0, 3.0, 1.0),
        (-2.0, 1.0, 1.0, 0.0),  # a step would lead further out
        (-2.0, -1.0, 1.0, -1.0),  # back in
        (9.0, -1.0, 6.0, 0.0),
        (9.0, 1.0, 6.0, 1.0),
        (3.0, np.nan, 3.0, 0.0),
        (3.0, -np.inf, 3.0, 0.0),
        (np.float32(np.inf), 1.0, 6.0, 1.0),
    ],
)
def test_an_extent_stays_between_its_bounds_and_finds_back(variable, upstream, extent, gradient):
    variable = tf.Variable([variable])
    with tf.GradientTape() as tape:
        value = learned_extent(variable, 1.0, 6.0)
    assert value.numpy() == [extent]
    assert tape.gradient(value, variable, output_gradients=tf.constant([np.float32(upstream)])).numpy() == [gradient]
    assert np.finfo(np.float32).max > LARGEST**2
