"""Distillation: the terms against numpy, what they read, and that the teacher leaves no trace."""

from __future__ import annotations

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.jobs.train import train
from tfqat.training.distillation import from_logits, from_probabilities

IMAGES = np.random.default_rng(5).normal(0, 1, (24, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(24) % 4


def net(head: str | None = "softmax", units: int = 4) -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(6, 3, padding="same", name="linear")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    # Large weights, or all classes would be alike.
    wide = keras.initializers.RandomNormal(stddev=30.0, seed=2)
    return keras.Model(image, layers.Dense(units, activation=head, kernel_initializer=wide, name="head")(x))


def prepared(model: keras.Model) -> keras.Model:
    qat = tfqat.prepare(model, rules=[{"match": "*", "weight_bits": 3}])
    tfqat.calibrate(qat, [IMAGES])
    tfqat.freeze(qat)  # so that a training step computes what evaluation does, but for ties
    return qat


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(own: np.ndarray, given: np.ndarray, temperature: float) -> float:
    """Hinton's term, written out: T^2 * mean over images of KL(teacher || model)."""
    p, q = softmax(given / temperature), softmax(own / temperature)
    return temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))


def inner(model: keras.Model, name: str) -> np.ndarray:
    return keras.Model(model.input, model.get_layer(name).output)(IMAGES, training=False).numpy().astype(np.float64)


def shown(qat: keras.Model) -> dict[str, float]:
    """What one training step over all images shows; the rate is 0."""
    qat.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    history = qat.fit(IMAGES, LABELS, batch_size=24, verbose=0, shuffle=False).history
    return {name: values[0] for name, values in history.items()}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_term_of_softmax_outputs(temperature):
    model = net()
    qat = prepared(model)
    plain = shown(qat)
    own, given = inner(qat, "head"), inner(ending_in_logits(model), "head")
    tfqat.distill(qat, model, weight=2.0, temperature=temperature)
    found = shown(qat)
    expected = 2.0 * divergence(own, given, temperature)
    assert expected > 1e-4
    assert found["distillation_loss"] == pytest.approx(expected, rel=0.02)
    assert found["loss"] == pytest.approx(plain["loss"] + expected, rel=1e-3)


def ending_in_logits(model: keras.Model) -> keras.Model:
    """A copy of the net that ends in its logits."""
    copy = net(head=None)
    copy.set_weights(model.get_weights())
    return copy


def test_logits_and_probabilities_say_the_same():
    own, given = np.random.default_rng(1).normal(0, 3, (2, 16, 5))
    expected = divergence(own, given, 2.0)
    given_logits = tuple(values.astype(np.float32) for values in (own, given))
    probabilities = tuple(softmax(values).astype(np.float32) for values in (own, given))
    assert float(from_logits(*given_logits, 2.0)) == pytest.approx(expected, rel=1e-5)
    assert float(from_probabilities(*probabilities, 2.0)) == pytest.approx(expected, rel=1e-4)


def test_a_model_that_gives_logits():
    model = ending_in_logits(net())
    qat = prepared(model)
    tfqat.distill(qat, model, temperature=2.0, outputs="logits")
    expected = divergence(inner(qat, "head"), inner(model, "head"), 2.0)
    assert shown(qat)["distillation_loss"] == pytest.approx(expected, rel=0.02)


def test_values_and_several_outputs():
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, activation="relu")(image)
    x = layers.Flatten()(layers.Conv2D(6, 3, activation="relu")(x))
    heads = {"a": layers.Dense(2)(x), "b": layers.Dense(3, activation="softmax", name="b")(x)}
    model = keras.Model(image, heads)
    qat = prepared(model)
    tfqat.distill(qat, model, weight=1.0, temperature=2.0, outputs="values")
    qat.compile(keras.optimizers.SGD(0.0), {"a": "mse", "b": "sparse_categorical_crossentropy"})
    targets = {"a": np.zeros((24, 2), np.float32), "b": LABELS % 3}
    history = qat.fit(IMAGES, targets, batch_size=24, verbose=0).history
    own, given = (one(IMAGES, training=False) for one in (qat, model))
    squares = np.mean(np.square(own["a"].numpy() - given["a"].numpy()))
    own, given = (np.log(out["b"].numpy().astype(np.float64)) for out in (own, given))
    expected = squares + divergence(own, given, 2.0)
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("name", "limit"), [("linear", np.inf), ("relu", 6.0)])
def test_features_are_read_behind_their_quantizer_and_clipped_where_relu6_clips(name, limit):
    model = net()
    model.get_layer("norm").gamma.assign(np.full(6, 8.0))  # beyond 6
    qat = prepared(model)
    tfqat.distill(qat, model, weight=0, features=[name], feature_weight=0.5)
    found = shown(qat)
    given = inner(model, name)
    assert given.max() > 6
    own = inner(qat, f"{name}>quantizer")
    expected = 0.5 * np.mean(np.square(own - np.minimum(given, limit)))
    assert found["feature_loss"] == pytest.approx(expected, rel=0.02)
    assert "distillation_loss" not in found


def test_training_learns_from_the_teacher_alone():
    """Labels say nothing here (their loss has weight 0): the 3-bit kernels come closer to the teacher by its term."""
    model = net()
    qat = prepared(model)
    tfqat.distill(qat, model, temperature=2.0)
    qat.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", loss_weights=[0.0])
    history = qat.fit(IMAGES, LABELS, batch_size=24, epochs=100, verbose=0).history
    assert history["distillation_loss"][-1] < 0.5 * history["distillation_loss"][0]


def test_evaluation_and_files_know_no_teacher(tmp_path):
    model = net()
    qat, other = prepared(model), prepared(model)
    before = [weight.copy() for weight in model.get_weights()]
    tfqat.distill(qat, model, features=["linear"])
    for one in (qat, other):
        one.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    assert qat.evaluate(IMAGES, LABELS, verbose=0) == other.evaluate(IMAGES, LABELS, verbose=0)
    history = qat.fit(IMAGES, LABELS, validation_data=(IMAGES, LABELS), verbose=0).history
    assert set(history) == {"loss", "distillation_loss", "feature_loss", "val_loss"}
    assert qat.evaluate(IMAGES, LABELS, verbose=0, return_dict=True).keys() == {"loss"}
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    other.fit(IMAGES, LABELS, verbose=0)
    assert [v.path for v in qat.variables] == [v.path for v in other.variables]
    assert len(qat.optimizer.variables) == len(other.optimizer.variables)
    qat.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(loaded(IMAGES, training=False), qat(IMAGES, training=False))
    assert "distillation_loss" not in loaded.fit(IMAGES, LABELS, verbose=0).history


def test_none_ends_it_also_where_a_loop_was_compiled():
    model = net()
    qat = prepared(model)
    tfqat.distill(qat, model)
    assert "distillation_loss" in shown(qat)
    tfqat.distill(qat, None)
    assert "distillation_loss" not in qat.fit(IMAGES, LABELS, verbose=0).history
    tfqat.distill(qat, model)
    assert "distillation_loss" in qat.fit(IMAGES, LABELS, verbose=0).history


def test_a_model_with_a_shared_layer_reads_the_call_of_the_name():
    image = keras.Input((8, 8, 1), name="image")
    twice = layers.Conv2D(1, 3, padding="same", name="twice")
    x = layers.Flatten()(twice(twice(image)))
    model = keras.Model(image, layers.Dense(4, activation="softmax")(x))
    qat = prepared(model)
    tfqat.distill(qat, model, weight=0, features=["twice/1"])
    given = keras.Model(image, twice(twice(image)))
    own = inner(qat, "twice>1>quantizer")
    expected = np.mean(np.square(own - given(IMAGES).numpy()))
    assert shown(qat)["feature_loss"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"features": ["lineer"]}, "'lineer' is no op that both.*linear"),
        ({"features": "linear"}, "expected a list"),
        ({"temperature": 0}, "temperature: expected a number above 0, received 0"),
        ({"weight": -1.0}, "weight: expected a number from 0"),
        ({"weight": 0}, "nothing would be learnt"),
        ({"outputs": "scores"}, "outputs: expected one of auto, logits, probabilities, values, received 'scores'"),
    ],
)
def test_wrong_settings(settings, expected):
    model = net()
    with pytest.raises(TfqatError, match=expected):
        tfqat.distill(prepared(model), model, **settings)


def test_wrong_models():
    model = net()
    qat = prepared(model)
    with pytest.raises(TfqatError, match=r"outputs of the model have the shapes.*4.*teacher.*5"):
        tfqat.distill(qat, net(units=5))
    with pytest.raises(TfqatError, match=r"teacher .* is a prepared model"):
        tfqat.distill(qat, prepared(model))
    with pytest.raises(TfqatError, match=r"not one that tfqat.prepare returned"):
        tfqat.distill(model, model)
    with pytest.raises(TfqatError, match=r"comes from no softmax layer.*outputs='logits'"):
        tfqat.distill(prepared(net(head=None)), net(head=None))


def test_a_run_by_its_spec(make_spec, user_module):
    user_module.net = lambda input_shape, num_classes: net(units=num_classes)
    spec = make_spec(distillation={"features": ["linear"], "feature_weight": 0.1})
    train(spec)
    with (Path(spec.results_dir) / "metrics.csv").open() as file:
        float_row, qat_row = csv.DictReader(file)
    assert float_row["distillation_loss"] == ""
    assert float(qat_row["distillation_loss"]) > 0
    assert float(qat_row["feature_loss"]) > 0
    assert float(qat_row["loss"]) > float(qat_row["distillation_loss"]) + float(qat_row["feature_loss"])


def test_features_of_an_equalized_model_are_compared_with_those_of_the_equalized_teacher(make_spec, user_module):
    """Else the float model's channels would pull back what equalization has scaled."""

    def uneven(input_shape, num_classes):
        image = keras.Input(input_shape)
        x = layers.Conv2D(4, 3, name="first")(image)
        x = layers.Conv2D(4, 3, name="second")(layers.ReLU(name="relu")(x))
        model = keras.Model(image, layers.Dense(num_classes, activation="softmax")(layers.Flatten()(x)))
        first, second = model.get_layer("first"), model.get_layer("second")
        gains = np.array([100.0, 1.0, 1.0, 0.01])
        first.kernel.assign(first.kernel * gains)
        second.kernel.assign(second.kernel / gains[:, None])
        return model

    user_module.net = uneven
    quantization = {"relu6": [], "tune": ["equalize"]}
    spec = make_spec(
        {"quantization_config": quantization},
        optimizer={"learning_rate": 1e-9},
        distillation={"weight": 0.0, "features": ["relu"]},
    )
    train(spec)
    with (Path(spec.results_dir) / "metrics.csv").open() as file:
        *_, qat_row = csv.DictReader(file)
    # The relu of the float model reaches to some 50, that of the equalized one to about 1.
    assert float(qat_row["feature_loss"]) < 1e-2


def test_an_unknown_feature_is_found_before_anything_is_trained(make_spec):
    spec = make_spec(distillation={"features": ["nothing_such"]})
    with pytest.raises(TfqatError, match="'nothing_such' is no op"):
        train(spec)
    assert not (Path(spec.results_dir) / "metrics.csv").exists()
