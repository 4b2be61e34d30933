"""Mixed precision: planted faults are found, each point is a model that prepare makes, and the budget holds."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.analysis import search
from tfqat.errors import TfqatError
from tfqat.rewrite.prepare import relu6_model

NAMES = ("one", "two", "three", "four")


def chain() -> keras.Model:
    keras.utils.set_random_seed(5)
    image = x = keras.Input((12, 12, 3), name="image")
    for name in NAMES:
        x = layers.ReLU(name=f"{name}_relu")(layers.Conv2D(8, 3, name=name)(x))
    x = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, x, name="chain")


def scaled(model, name, channel, factor):
    """One channel larger, and what reads it smaller by as much: the float model computes the same."""
    reader = model.get_layer(NAMES[NAMES.index(name) + 1])
    kernel, bias = (w.numpy() for w in model.get_layer(name).weights)
    kernel[..., channel], bias[channel] = kernel[..., channel] * factor, bias[channel] * factor
    model.get_layer(name).set_weights([kernel, bias])
    kernel, bias = (w.numpy() for w in reader.weights)
    kernel[:, :, channel, :] /= factor
    reader.set_weights([kernel, bias])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(120, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def sound(images):
    """A model whose classes are balanced, and what it says of the images."""
    model = chain()
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * 20, (bias - model.predict(images, verbose=0).mean(axis=0)) * 20])
    return model, model.predict(images, verbose=0).argmax(-1)


def with_fault(sound, name, factor):
    model = keras.models.clone_model(sound)
    model.set_weights(sound.get_weights())
    scaled(model, name, 3, factor)
    return model


def with_wide_kernel(sound, reader, factor=300):
    """A channel that is always 0, and large weights that read it: the float model computes what it would without."""
    model = keras.models.clone_model(sound)
    model.set_weights(sound.get_weights())
    before = model.get_layer(NAMES[NAMES.index(reader) - 1])
    kernel, bias = (w.numpy() for w in before.weights)
    kernel[..., 3], bias[3] = 0, 0
    before.set_weights([kernel, bias])
    kernel, bias = (w.numpy() for w in model.get_layer(reader).weights)
    kernel[:, :, 3, :] *= factor
    model.get_layer(reader).set_weights([kernel, bias])
    return model


def accuracy(model, images, labels):
    return float((model.predict(images, verbose=0).argmax(-1) == labels).mean())


def again(model, rules, images, **options):
    qat = tfqat.prepare(model, rules=rules, **options)
    tfqat.calibrate(qat, images)
    return qat


@pytest.mark.parametrize("reader", ["two", "three"])
def test_a_kernel_that_rounding_ruins_goes_to_float_alone(reader, sound, images):
    model, _ = sound
    faulty = with_wide_kernel(model, reader)
    labels = faulty.predict(images, verbose=0).argmax(-1)
    found = tfqat.recommend(faulty, (images, labels), relu6=(), max_drop=5)
    assert found.points[0].drop > 5
    assert found.best.floats == (reader,)
    assert [rule["match"] for rule in found.rules] == [reader, f"{reader}_relu"]
    assert "its rounding alone changes the output by" in found.reasons[0]
    fresh = again(faulty, found.rules, images, relu6=())
    assert accuracy(fresh, images, labels) == pytest.approx(found.best.accuracy)
    assert 100 * (found.float_accuracy - accuracy(fresh, images, labels)) <= 5
    assert fresh.placement.int8_mac_share == found.best.int8_share


def test_a_tensor_with_an_outlier_channel_takes_the_blocks_around_it(sound, images):
    model, labels = sound
    faulty = with_fault(model, "two", 300)
    found = tfqat.recommend(faulty, (images, labels), relu6=(), max_drop=5)
    assert found.points[0].drop > 5
    assert found.best.floats == ("two", "three")
    assert any(point.floats == ("two",) and point.drop > 5 for point in found.points)
    assert "together with three" in found.reasons[0]
    assert accuracy(again(faulty, found.rules, images, relu6=()), images, labels) == found.best.accuracy


def test_where_all_on_integers_is_good_enough_there_are_no_rules(sound, images):
    found = tfqat.recommend(sound[0], (images, sound[1]), relu6=(), max_drop=20)
    assert (found.rules, len(found.points), found.chosen) == ((), 1, 0)
    assert "no rule is needed" in found.sentence


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla", "sima", "tflite"])
def test_what_is_recommended_can_be_exported(target, sound, images, tmp_path):
    model, labels = sound
    faulty = with_fault(model, "two", 1 / 300)
    formats = ["qdq_onnx"] if target == "tflite" else None
    found = tfqat.recommend(faulty, (images, labels), target=target, relu6=(), max_drop=8, low_bits=4, formats=formats)
    assert found.chosen is not None
    assert found.best.floats
    fresh = again(faulty, found.rules, images, target=target, relu6=())
    tfqat.export(fresh, tmp_path, formats=formats, calibration=[images[:32]])
    assert tfqat.verify(fresh, tmp_path, images[:32]).passed


def test_a_file_of_integers_only_gets_no_float(sound, images):
    model, labels = sound
    faulty = with_fault(model, "two", 1 / 300)
    found = tfqat.recommend(faulty, (images, labels), target="tflite", relu6=(), max_drop=1)
    assert (found.chosen, len(found.points), found.rules) == (None, 1, ())
    assert any("tflite holds integers only" in note for note in found.notes)
    assert "None of 1 models" in found.sentence


@pytest.mark.parametrize("bits", [5, 6, 7])
def test_few_bits_that_a_cache_cannot_hold(bits, sound, images, tmp_path):
    with pytest.raises(TfqatError, match=rf"low_bits: received {bits}, expected 2 to 4.*cache"):
        tfqat.recommend(sound[0], (images, sound[1]), low_bits=bits)
    # It is what export would say.
    qat = again(sound[0], [{"match": "two", "weight_bits": bits}], images)
    with pytest.raises(TfqatError, match="quantize the kernels of 1 layers anew"):
        tfqat.export(qat, tmp_path)


@pytest.mark.parametrize("bits", [4, 5])
def test_kernels_go_to_few_bits_as_far_as_the_bound_allows(bits, sound, images):
    model, labels = sound
    found = tfqat.recommend(model, (images, labels), relu6=(), max_drop=12, low_bits=bits, formats=["qdq_onnx"])
    assert found.best.low
    assert found.best.floats == ()
    fresh = again(model, found.rules, images, relu6=())
    low = {name for name, scheme in fresh.placement.weights.items() if scheme.bits == bits}
    assert low == set(found.best.low)
    assert accuracy(fresh, images, labels) == pytest.approx(found.best.accuracy)
    assert found.best.drop <= 12
    assert all(point.drop > 12 or point.low_share <= found.best.low_share for point in found.points)


def test_rules_that_are_there_stay_and_come_after(sound, images):
    faulty = with_wide_kernel(sound[0], "three")
    labels = faulty.predict(images, verbose=0).argmax(-1)
    own = [{"match": "four", "weight_bits": 7}, {"match": "three", "weight_bits": 6}]
    found = tfqat.recommend(faulty, (images, labels), relu6=(), rules=own, max_drop=5)
    # A rule that no kernel is left for would be an error: `three` stays, whatever it costs.
    assert found.chosen is None or "three" not in found.best.floats
    for point in found.points:
        assert "three" not in point.floats


def test_the_bound_cannot_be_kept(sound, images):
    """ReLU6 is what costs, and no rule for integers helps."""
    model, _ = sound
    large = keras.models.clone_model(model)
    large.set_weights(model.get_weights())
    kernel, bias = large.get_layer("one").get_weights()
    large.get_layer("one").set_weights([20 * kernel, 20 * bias])
    kernel, bias = large.get_layer("head").get_weights()
    large.get_layer("head").set_weights([kernel, bias - large.predict(images, verbose=0).mean(axis=0)])
    truth = large.predict(images, verbose=0).argmax(-1)
    assert accuracy(relu6_model(large), images, truth) < 0.9
    found = tfqat.recommend(large, (images, truth), max_drop=0.5)
    assert found.chosen is None
    assert found.rules == ()
    assert found.best.accuracy == max(point.accuracy for point in found.points)


def test_the_budget(sound, images, monkeypatch):
    """All on integers is measured whatever the time; nothing is begun after it."""
    model, labels = sound
    faulty = with_fault(model, "two", 1 / 300)
    found = tfqat.recommend(faulty, (images, labels), relu6=(), max_drop=5, budget=1e-6)
    assert (len(found.points), found.chosen) == (1, None)
    assert any("The time was over" in note or "not looked at" in note for note in found.notes)


def test_a_search_that_is_broken_off_keeps_what_it_has(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    blocks = [search.Int8Block(name, (name,), (name,), 10) for name in "abcdefgh"]
    candidates = [search.Candidate((block,), 1.0, 1.0, "") for block in blocks]

    def measure(floats, low):
        drop = 5.0 - len(floats)
        return search.Point(tuple(b.name for b in floats), low, 0.9, drop, 1 - len(floats) / 8, 0)

    whole = search.Search(measure, 2, None, "abcdefgh")
    assert not whole.all_on_integers()
    whole.to_float(candidates)
    assert len(whole.floats) == 3
    broken = search.Search(measure, 2, 2.5, "abcdefgh")
    broken.all_on_integers()
    broken.to_float(candidates)
    assert broken.out_of_time
    assert len(broken.floats) == 4  # by doubling, without halving
    assert len(broken.points) < len(whole.points)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": -1}, "max_drop: expected points of accuracy from 0, received -1"),
        ({"max_drop": float("nan")}, "max_drop"),
        ({"low_bits": 8}, "low_bits: expected a whole number from 2 to 7"),
        ({"images": 0}, "images: expected"),
        ({"budget": 0}, "budget: expected"),
    ],
)
def test_wrong_arguments(options, message, sound, images):
    with pytest.raises(TfqatError, match=message):
        tfqat.recommend(sound[0], (images, sound[1]), **options)


def test_without_labels(sound, images):
    with pytest.raises(TfqatError, match="No accuracy can be measured: expected integer labels"):
        tfqat.recommend(sound[0], images)
