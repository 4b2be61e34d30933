"""A batch finds the inputs of its model, in whatever nest it comes."""

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.graph.feed import by_input
from tfqat.view.view import view

A, B, C = (np.full((4, 3), value, "float32") for value in (1, 2, 3))


def model_of(structure):
    tensors = {name: keras.Input((3,), name=name) for name in "abc"}
    total = layers.Dense(2)(layers.Dense(3)(tensors["a"] * 100 + tensors["b"] * 10 + tensors["c"]))
    return keras.Model(structure(tensors), total)


# What the model takes -> batches that give a, b and c.
STRUCTURES = {
    "list": (lambda t: [t["c"], t["a"], t["b"]], [[C, A, B], (C, A, B), {"a": A, "b": B, "c": C}]),
    "dictionary of other keys": (
        lambda t: {"z": t["a"], "x": t["c"], "y": t["b"]},
        [{"z": A, "x": C, "y": B}, {"y": B, "label": 0, "z": A, "x": C}, {"c": C, "b": B, "a": A}],
    ),
    "nest": (lambda t: {"p": [t["b"], t["c"]], "q": {"r": t["a"]}}, [{"q": {"r": A}, "p": [B, C]}]),
}
CASES = [(structure, batch) for structure, batches in STRUCTURES.values() for batch in batches]


@pytest.mark.parametrize(("structure", "batch"), CASES)
def test_each_input_gets_its_own_array(structure, batch):
    found = by_input(view(model_of(structure)), batch)
    assert {name: value[0, 0] for name, value in found.items()} == {"a": 1, "b": 2, "c": 3}


# A tuple is (x, y, sample_weight) there, as in model.fit.
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla"])
@pytest.mark.parametrize(("structure", "batch"), [case for case in CASES if not isinstance(case[1], tuple)])
def test_calibration_export_and_verify_take_it(structure, batch, target, tmp_path):
    qat = tfqat.prepare(model_of(structure), target)
    tfqat.calibrate(qat, [batch])
    tfqat.export(qat, tmp_path, calibration=[batch] if target == "tensorrt_dla" else None)
    assert tfqat.verify(qat, tmp_path, [batch]).passed


@pytest.mark.parametrize(
    ("batch", "message"),
    [([A, B], "3 inputs .* a batch has 2"), ({"z": A, "x": B}, "lacks the input y"), (A, "a batch has 1")],
)
def test_what_does_not_fit_is_an_error(batch, message):
    with pytest.raises(TfqatError, match=message):
        by_input(view(model_of(STRUCTURES["dictionary of other keys"][0])), batch)


def test_a_weight_of_one_number_goes_the_whole_way(tmp_path):
    @tfqat.quantizable
    class Gate(layers.Layer):
        def build(self, shape):
            self.gate = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return x * (1 / (1 + self.gate * self.gate))

    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(Gate()(layers.Dense(4)(x))))
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, [A])
    tfqat.export(qat, tmp_path)
    assert tfqat.verify(qat, tmp_path, A).passed
