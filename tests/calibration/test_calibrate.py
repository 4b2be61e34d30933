"""Calibration: the methods against brute force, the histogram against numpy, and what calibrate reports."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tfqat
from tfqat.calibration.histogram import BINS, Histogram
from tfqat.calibration.methods import METHODS
from tfqat.core.encoding import encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.rewrite.model import range_layers

BATCHES = st.lists(arrays(np.float32, 50, elements=st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=5)


def histogram_of(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


@settings(deadline=None)
@given(batches=BATCHES)
def test_a_histogram_counts_all_values_where_they_are(batches):
    histogram, values = histogram_of(*batches), np.concatenate(batches)
    assert histogram.counts.sum() == values.size
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    if histogram.width:
        # Cumulated from the left, no value is further from its place than a bin, whatever the bins merged into.
        cut = float(np.median(values))
        below = histogram.counts[histogram.centers < cut - 2 * histogram.width].sum()
        assert below <= (values < cut).sum()
        above = histogram.counts[histogram.centers > cut + 2 * histogram.width].sum()
        assert above <= (values > cut).sum()


def test_a_histogram_of_one_value_is_no_special_case():
    histogram = histogram_of([2.0, 2.0], [2.0], [-1.0, 3.0])
    assert histogram.counts.sum() == 5
    assert histogram.counts[np.abs(histogram.centers - 2.0) < 0.01].sum() == 3


def test_a_histogram_refuses_nan():
    with pytest.raises(ValueError, match="finite"):
        histogram_of([np.nan])


def test_minmax_takes_all():
    assert METHODS["minmax"](histogram_of([-3.0, 2.0, 7.0]), Scheme(), 99.0) == (-3.0, 7.0)


def test_percentile_is_that_of_numpy():
    values = np.random.default_rng(0).normal(size=100_000).astype("float32")
    low, high = METHODS["percentile"](histogram_of(values), Scheme(), 99.0)
    expected = float(np.percentile(np.abs(values), 99.0))
    assert max(-low, high) == pytest.approx(expected, abs=float(2 * np.ptp(values) / BINS))


def test_mse_is_near_the_best_of_a_fine_search():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(size=20_000), [25.0, -30.0]]).astype("float32")
    errors = {}
    for amax in np.linspace(0.5, 30, 2000):
        errors[amax] = np.square(encoding_of_range(Scheme(bits=4), -amax, amax).fake_quantize(values) - values).mean()
    low, high = METHODS["mse"](histogram_of(values), Scheme(bits=4), 99.0)
    chosen = encoding_of_range(Scheme(bits=4), low, high).fake_quantize(values)
    assert max(-low, high) < 30
    assert np.square(chosen - values).mean() <= 1.05 * min(errors.values())


@pytest.mark.parametrize("method", METHODS)
def test_each_method_sets_every_range(zoo, method):
    model = zoo.conv_net()
    qat = tfqat.prepare(model)
    report = tfqat.calibrate(qat, [zoo.data(model)] * 3, method=method, batches=2)
    assert [item.tensor for item in report.ranges] == ["image", "relu1", "pool"]
    assert report.batches == 2
    assert all(layer.has_data for layer in range_layers(qat))
    assert report.no_data == ()


def test_minmax_gives_what_the_model_sees(zoo):
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model), zoo.data(model)
    tfqat.calibrate(qat, [x], method="minmax")
    assert np.array(range_layers(qat)[0].extent)[0] == np.abs(x).max()


def test_no_data_is_reported_by_name(zoo):
    report = tfqat.calibrate(tfqat.prepare(zoo.conv_net()), [])
    assert report.no_data == ("image", "relu1", "pool")
    assert "saw no data (3): image, relu1, pool" in str(report)


def test_a_dead_tensor_is_reported(zoo):
    model = zoo.conv_net()
    qat = tfqat.prepare(model)
    assert tfqat.calibrate(qat, [np.zeros((2, 8, 8, 3), "float32")]).dead == ("image", "relu1", "pool")


def test_nan_in_the_data_is_an_error_that_names_the_tensor(zoo):
    with pytest.raises(TfqatError, match="'image' has NaN"):
        tfqat.calibrate(tfqat.prepare(zoo.conv_net()), [np.full((2, 8, 8, 3), np.nan, "float32")])


@pytest.mark.parametrize("shape", ["array", "pair", "tuple", "dataset"])
def test_data_comes_as_fit_takes_it(zoo, shape):
    import tensorflow as tf

    model = zoo.conv_net()
    x, y = zoo.data(model, 8), np.zeros(8)
    given = {
        "array": x,
        "pair": (x, y),
        "tuple": [(x, y)],
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(4),
    }
    assert not tfqat.calibrate(tfqat.prepare(model), given[shape]).no_data


def test_a_batch_of_too_many_inputs_is_an_error(zoo):
    x = zoo.data(zoo.conv_net())
    with pytest.raises(TfqatError, match="has 1 inputs"):
        tfqat.calibrate(tfqat.prepare(zoo.conv_net()), [[x, x]])


def test_inputs_by_name(zoo):
    model = zoo.many_inputs()
    assert not tfqat.calibrate(tfqat.prepare(model), [zoo.data(model)]).no_data


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "kl"}, "minmax, percentile, mse"), ({"batches": 0}, "at least 1"), ({"percentile": 0}, "above 0")],
)
def test_a_bad_option_is_an_error(zoo, options, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.calibrate(tfqat.prepare(zoo.conv_net()), [], **options)


def test_calibration_runs_without_quantization_of_activations(zoo):
    # Were upstream ranges used, a first calibration with tiny data would clip all that follows.
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model), zoo.data(model)
    tfqat.calibrate(qat, [x * 1e-3], method="minmax")
    tfqat.calibrate(qat, [x], method="minmax")
    twin = tfqat.prepare(model)
    tfqat.calibrate(twin, [x], method="minmax")
    for a, b in zip(range_layers(qat), range_layers(twin), strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(a.extent), keras.ops.convert_to_numpy(b.extent))


def test_values_that_hardly_differ_are_calibrated():
    histogram = Histogram()
    histogram.add(np.float32([1.0, 1.0000001]))
    histogram.add(np.float32([0.4999957, 0.5000044]))
    assert histogram.counts.sum() == 4
    assert (histogram.low, histogram.high) == (np.float32(0.4999957), np.float32(1.0000001))


def test_a_nest_of_inputs_goes_by_its_names(fresh_names):
    b, a, c = (keras.Input((4,), name=name) for name in "bac")
    hidden = keras.layers.Dense(4, name="hidden")(keras.layers.Concatenate(name="all")([a, b, c]))
    model = keras.Model({"z": [b, a], "q": {"c": c}}, keras.layers.Dense(2)(keras.layers.ReLU()(hidden)))
    qat, one = tfqat.prepare(model), np.ones((2, 4), "float32")
    tfqat.calibrate(qat, [{"q": {"c": one}, "unread": one, "z": [2 * one, 3 * one]}], method="minmax")
    highest = {layer.name: float(np.max(layer.extent)) for layer in range_layers(qat)}
    assert [round(highest[f"{name}>quantizer"], 4) for name in "bac"] == [2, 3, 1]


def divergence_written_out(values, bound, levels):
    """Of |values| clipped at a bound from what ``levels`` integers keep, as TensorRT's calibrator has it."""
    edges = np.linspace(0.0, np.abs(values).max(), 2049)
    counts = np.histogram(np.abs(values), edges)[0].astype(float)
    counts[0] = min(counts[0], counts[1])
    used = int(np.searchsorted(edges, bound - 1e-9))
    wanted, kept = counts[:used].copy(), np.zeros(used)
    wanted[-1] += counts[used:].sum()
    for level in range(levels):
        first, last = -(-level * used // levels), -(-(level + 1) * used // levels)
        inside = counts[first:last]
        kept[first:last] = np.where(inside > 0, inside.sum() / max((inside > 0).sum(), 1), 0.0)
    wanted, kept = wanted / wanted.sum(), kept / kept.sum()
    return sum(p * np.log(p / max(q, 1e-12)) for p, q in zip(wanted, kept, strict=True) if p > 0)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", ["normal", "relu", "outlier"])
def test_entropy_is_the_least_divergence_of_a_search_written_out(shape, bits):
    values = np.random.default_rng(0).laplace(size=300_000).astype("float32")
    values = {"normal": values, "relu": np.maximum(values, 0), "outlier": np.append(values, 60.0)}[shape]
    # The search goes in steps of 8 bins of 2048; one level a bin leaves nothing to lose, so that it begins there.
    levels = 2 ** (bits - 1)
    bound = max(map(abs, METHODS["entropy"](histogram_of(values), Scheme(bits=bits), 99.0)))
    found = divergence_written_out(values, bound, levels)
    furthest = float(np.abs(values).max())
    others = [divergence_written_out(values, furthest * share, levels) for share in np.linspace(0.1, 1.0, 91)]
    assert found <= min(others) + 0.02


def test_entropy_cuts_an_outlier_off_and_not_what_a_relu_leaves():
    values = np.random.default_rng(0).normal(size=50_000).astype("float32")
    for scheme in (Scheme(), Scheme(signed=False, symmetric=False)):
        assert METHODS["entropy"](histogram_of(np.append(values, 40.0)), scheme, 99.0)[1] < 7.0
        assert METHODS["entropy"](histogram_of(np.maximum(values, 0)), scheme, 99.0)[1] > 3.0


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_entropy_finds_values_that_lie_at_the_end_of_the_range(bits, symmetric):
    values = np.random.default_rng(0).normal(100, 0.01, 1000).astype("float32")
    scheme = Scheme(bits=bits, signed=symmetric, symmetric=symmetric)
    assert METHODS["entropy"](histogram_of(values), scheme, 99.0)[1] == pytest.approx(values.max())
