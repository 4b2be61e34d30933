"""Quantizer: its numbers against numpy written out, its moving average against the formula, its switches."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from tfqat.core.encoding import encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.rewrite.quantizer import Quantizer, RangeObserver

SIGNED = Scheme()
UNSIGNED = Scheme(signed=False, symmetric=False)


def built(cls=Quantizer, scheme=SIGNED, extent=None, **options):
    layer = cls(scheme, **options)
    layer.build((None, 4))
    if extent is not None:
        layer.set_range(np.asarray(extent, np.float32))
    return layer


def call(layer, values, **options):
    return ops.convert_to_numpy(layer(ops.convert_to_tensor(np.asarray(values, np.float32)), **options))


@settings(deadline=None, max_examples=50)
@given(values=arrays(np.float32, 64, elements=st.floats(-20, 20, width=32)), amax=st.floats(0.015625, 16, width=32))
def test_training_output_is_what_the_encoding_says_but_for_ties(values, amax):
    layer = built(extent=[amax], ranges="fixed")
    expected = encoding_of_range(Scheme(), -amax, amax).fake_quantize(values)
    scale = np.float32(amax) / np.float32(127)
    steps = values / scale
    tie = np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-3  # the fused kernel rounds half up
    difference = np.abs(call(layer, values, training=True) - expected)
    assert difference[~tie].max(initial=0) <= 1e-6 * amax
    assert difference.max(initial=0) <= scale * 1.001


@settings(deadline=None, max_examples=30)
@given(values=arrays(np.float32, 64, elements=st.floats(-8, 8, width=32)))
def test_asymmetric_training_output_is_what_the_encoding_says_but_for_ties(values):
    layer = built(scheme=UNSIGNED, extent=[2.0, 6.0], ranges="fixed")
    encoding = encoding_of_range(UNSIGNED, -2.0, 6.0)
    steps = values / encoding.scale
    tie = np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-3
    output = call(layer, values, training=True)
    assert np.abs(output - encoding.fake_quantize(values))[~tie].max(initial=0) < 1e-5


@settings(deadline=None, max_examples=50)
@given(integers=arrays(np.int32, 64, elements=st.integers(-400, 400)), amax=st.floats(0.015625, 16, width=32))
def test_evaluation_output_is_what_the_encoding_says_ties_too(integers, amax):
    encoding = encoding_of_range(Scheme(), -amax, amax)
    values = (integers * encoding.scale / np.float32(2)).astype(np.float32)  # every second one is a tie, or next to it
    assert np.array_equal(call(built(extent=[amax]), values), encoding.fake_quantize(values))


@settings(deadline=None, max_examples=30)
@given(values=arrays(np.float32, 64, elements=st.floats(-8, 8, width=32)))
def test_asymmetric_evaluation_output_is_what_the_encoding_says(values):
    encoding = encoding_of_range(UNSIGNED, -2.0, 6.0)
    layer = built(scheme=UNSIGNED, extent=[2.0, 6.0])
    assert np.allclose(call(layer, values), encoding.fake_quantize(values), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@settings(deadline=None, max_examples=50)
@given(values=arrays(np.float32, 64, elements=st.floats(-20, 20, width=32)), amax=st.floats(0.5, 6, width=32))
def test_absorbing_relu6_computes_what_relu6_and_the_quantizer_do(training, values, amax):
    whole, alone = (built(extent=[amax], ranges="fixed", absorbs_relu6=absorbs) for absorbs in (True, False))
    difference = np.abs(call(whole, values, training=training) - call(alone, np.clip(values, 0, 6), training=training))
    steps = np.clip(values, 0, 6) * 127 / np.float32(amax)
    tie = np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-3
    assert difference[~tie].max(initial=0) <= 1e-6 * amax
    assert difference.max(initial=0) <= (amax / 127 * 1.001 if training else 0)


@pytest.mark.parametrize(("largest", "expected"), [(4.0, 4.0), (40.0, 6.0), (-1.0, 0.0)])
def test_absorbing_relu6_observes_what_comes_after_it(largest, expected):
    layer = built(absorbs_relu6=True, nonnegative=True)
    call(layer, [[-9.0, largest]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == expected


def test_the_moving_average_is_debiased():
    layer, expected, norm = built(decay=0.9), 0.0, 0.0
    for amax in (4.0, 1.0, 2.0, 8.0):
        call(layer, [[amax, -amax / 2]], training=True)
        expected, norm = 0.9 * expected + 0.1 * amax, 0.9 * norm + 0.1
        assert ops.convert_to_numpy(layer.extent)[0] == pytest.approx(expected / norm, rel=1e-6)


def test_the_first_batch_sets_the_range_whole():
    layer = built(decay=0.999)
    assert not layer.has_data
    call(layer, [[0.25, -0.5]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == 0.5
    assert layer.has_data


def test_evaluation_never_moves_a_range():
    layer = built(extent=[1.0])
    for training in (False, None):
        call(layer, [[50.0]], training=training)
    assert ops.convert_to_numpy(layer.extent)[0] == 1.0


def test_a_frozen_range_stays_bit_for_bit():
    layer = built(extent=[0.3])
    layer.freeze()
    before = ops.convert_to_numpy(layer.extent)
    call(layer, [[50.0]], training=True)
    assert np.array_equal(ops.convert_to_numpy(layer.extent), before)


def test_ranges_stop_after_the_given_step():
    layer = built(decay=0.5, freeze_after=2)
    seen = []
    for amax in (1.0, 2.0, 4.0, 8.0):
        call(layer, [[amax]], training=True)
        seen.append(float(ops.convert_to_numpy(layer.extent)[0]))
    assert seen[0] < seen[1] == seen[2] == seen[3]


def test_a_learned_range_stops_after_the_given_step():
    layer = built(ranges="learned", freeze_after=2)
    read = []
    for amax in (1.0, 2.0, 4.0, 8.0):  # what an optimizer makes of it, step by step
        layer.extent.assign([amax])
        call(layer, [[0.0]], training=True)
        read.append(float(ops.convert_to_numpy(layer.shared_extent())[0]))
    assert read == [1.0, 2.0, 4.0, 4.0]


@pytest.mark.parametrize("ranges", ["moving_average", "learned", "fixed"])
def test_calibration_sets_a_frozen_range_anew(ranges):
    layer = built(ranges=ranges, extent=[1.0])
    layer.freeze()
    layer.set_range([5.0])
    assert ops.convert_to_numpy(layer.shared_extent())[0] == 5.0


def test_fixed_ranges_move_by_calibration_only():
    layer = built(ranges="fixed", extent=[1.0])
    call(layer, [[50.0]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == 1.0


def test_nan_and_inf_do_not_spoil_the_range():
    layer = built(extent=[1.0])
    for value in (np.nan, np.inf):
        call(layer, [[value, 0.0]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == 1.0


def test_a_share_of_the_batch_is_looked_at():
    layer = built(observe_fraction=0.25)
    call(layer, [[1.0], [2.0], [9.0], [9.0], [9.0], [9.0], [9.0], [9.0]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == 2.0
    call(layer, [[3.0]], training=True)  # at least one row
    assert ops.convert_to_numpy(layer.extent)[0] > 2.0


def test_a_dead_tensor_is_floored():
    layer = built()
    assert np.array_equal(call(layer, [[0.0, 0.0]], training=True), [[0.0, 0.0]])
    assert layer.encoding().dead


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="GradientTape is TensorFlow's")
def test_gradient_passes_inside_the_range_and_stops_outside():
    import tensorflow as tf

    layer = built(ranges="fixed", extent=[1.0])
    x = tf.constant([[0.4, -0.9, 1.5, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x, training=True) * [1.0, 2.0, 3.0, 4.0])
    assert np.array_equal(tape.gradient(y, x), [[1, 2, 0, 0]])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="GradientTape is TensorFlow's")
def test_learned_steps_get_the_gradient_of_lsq():
    import tensorflow as tf

    layer = built(ranges="learned", extent=[1.27])
    x = tf.constant([[0.503, -0.016, 2.0, -3.0]])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(x, training=True))
    (gradient,) = tape.gradient(y, layer.trainable_weights)
    scale = 0.01
    inside = np.array([50 - 0.503 / scale, -2 + 0.016 / scale])
    by_scale = (inside.sum() + 127 - 128) / np.sqrt(4 * 127)
    assert float(gradient[0]) == pytest.approx(by_scale / 127, rel=1e-3)


def test_an_observer_passes_values_on_and_learns_their_range():
    layer = built(RangeObserver)
    values = np.float32([[0.123, -4.0]])
    assert np.array_equal(call(layer, values, training=True), values)
    assert ops.convert_to_numpy(layer.extent)[0] == 4.0


def test_tied_quantizers_read_the_largest_range_and_keep_their_own():
    a, b = built(extent=[1.0], group="g"), built(extent=[2.0], group="g")
    a.tie([a, b]), b.tie([a, b])
    assert a.encoding() == b.encoding() == encoding_of_range(Scheme(), -2.0, 2.0)
    assert call(a, [[1.9]])[0, 0] == pytest.approx(1.9, abs=0.01)
    assert ops.convert_to_numpy(a.extent)[0] == 1.0


def test_a_quantizer_cut_off_from_its_group_says_so():
    with pytest.raises(ValueError, match=r"tfqat\.load_model"):
        call(built(extent=[1.0], group="g"), [[1.0]])


def test_config_round_trips():
    layer = built(scheme=UNSIGNED, ranges="fixed", decay=0.5, observe_fraction=0.5, freeze_after=3, group="g")
    again = Quantizer.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.scheme == UNSIGNED


def test_calibration_that_the_first_batch_proves_wrong_is_left_behind():
    layer = built(decay=0.99, extent=[0.001])
    call(layer, [[3.0]], training=True)
    call(layer, [[1.0]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == pytest.approx((0.99 * 3 + 1) / 1.99, rel=1e-5)


@pytest.mark.parametrize("first", [0.5, 1.9])
def test_calibration_that_fits_is_kept_at_full_weight(first):
    layer = built(decay=0.99, extent=[1.0])
    call(layer, [[first]], training=True)
    assert ops.convert_to_numpy(layer.extent)[0] == pytest.approx(1 + 0.01 * (first - 1), rel=1e-5)
    call(layer, [[50.0]], training=True)  # only the first batch may do so: later ones may hold outliers
    assert ops.convert_to_numpy(layer.extent)[0] < 1.6
