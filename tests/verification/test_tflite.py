"""The TFLite runner and judge pass what is right and notice what is not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.exporters.tflite_graph.build import build
from tfqat.exporters.tflite_graph.flatbuffer import pack, unpack
from tfqat.rewrite.split import split
from tfqat.verification.keras_values import values_of
from tfqat.verification.runner import RunError
from tfqat.verification.tflite_blocks import allowances, approximate, judge_tflite_blocks
from tfqat.verification.tflite_runner import TfliteRunner
from tfqat.view.view import view

RNG = np.random.default_rng(0)
# Two kinds, bright and dark, so that classes do not hang on a rounding.
KINDS = np.where(np.arange(48) % 2, 1.0, -1.0).reshape(-1, 1, 1, 1)
IMAGES = (KINDS + RNG.normal(scale=0.5, size=(48, 8, 8, 3))).astype("float32")


@pytest.fixture(scope="module")
def qat():
    keras.utils.set_random_seed(2)
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Conv2D(8, 3, padding="same", bias_initializer="random_normal", name="second")(x)
    model = keras.Model(image, layers.Dense(4, name="head")(layers.Flatten(name="flat")(x)))
    prepared = tfqat.prepare(model, target="tflite")
    tfqat.calibrate(prepared, tf.data.Dataset.from_tensor_slices(IMAGES).batch(48), method="minmax", batches=1)
    return prepared


@pytest.fixture(scope="module")
def folder(qat, tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite")
    tfqat.export(qat, path)
    return path


@pytest.fixture(scope="module")
def data(folder):
    return (folder / "model.tflite").read_bytes()


@pytest.fixture(scope="module")
def values(qat):
    return values_of(tfqat.finalize(qat), {"image": IMAGES[:16]})


def test_verify_passes_the_export(qat, folder):
    labels = np.asarray(qat(IMAGES)).argmax(axis=-1)
    report = tfqat.verify(qat, folder, (IMAGES, labels))
    assert report.passed, report
    assert [(row.name, row.correct, row.agreeing) for row in report.rows] == [("int8 TFLite", 48, 48)]
    assert {score.tensor for score in report.blocks} == {"first/relu", "pool", "second", "flat", "head"}


def test_floats_in_and_out_are_the_files_integers(data):
    runner = TfliteRunner(data)
    entry = runner._inputs["image"]
    scale, zero_point = entry["quantization"]
    integers = np.clip(np.rint(IMAGES / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    plain = runner.run_integers({"image": integers})["head"]
    assert plain.dtype == np.int8
    out_scale, out_zero = runner._outputs["head"]["quantization"]
    expected = (plain.astype(np.float32) - out_zero) * np.float32(out_scale)
    np.testing.assert_array_equal(runner.run({"image": IMAGES})["head"], expected)
    np.testing.assert_array_equal(runner.predict([IMAGES[:20], IMAGES[20:]])[0], expected)


def test_every_block_passes_and_the_rounding_of_averages_is_told(data, values):
    scores = judge_tflite_blocks(data, values, {"image": IMAGES[:16]})
    assert all(score.passed for score in scores)
    assert set(allowances(data)) == {"AVERAGE_POOL_2D"}


def judged(make, count: int = 64):
    """The file of a model, and the scores of its blocks."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x, y = (layers.Conv2D(8, 3, padding="same", name=name)(image) for name in ("one", "other"))
    prepared = tfqat.prepare(keras.Model(image, make(x, y)), target="tflite")
    images = np.random.default_rng(1).normal(size=(count, 8, 8, 3)).astype("float32")
    tfqat.calibrate(prepared, images, method="minmax")
    final = tfqat.finalize(prepared)
    model, learnt = split(final)
    data = build(view(model), learnt).data
    scores = judge_tflite_blocks(data, values_of(final, {"image": images}), {"image": images})
    return final, data, {score.tensor: score for score in scores}


def test_the_allowance_of_an_inner_operator_is_that_of_the_tensor_behind_it():
    _, data, scores = judged(lambda x, y: layers.Average(name="average")([x, y]), count=256)
    assert set(allowances(data)) == {"ADD"}
    assert scores["average"].differing == 0
    # Without it, the runtime's rounding of ties is seen here.
    assert scores["average"].largest == 1


def test_operators_that_are_not_exact_are_told_apart_from_ties():
    data = judged(lambda x, y: layers.LeakyReLU(0.3)(layers.Add()([x, y])), count=4)[1]
    assert set(allowances(data)) == {"ADD", "LEAKY_RELU"}
    assert approximate(data) == ["LEAKY_RELU"]


def test_slopes_of_a_prelu_are_those_of_the_file():
    slopes = keras.initializers.RandomUniform(0.1, 0.4)
    final, data, scores = judged(lambda x, y: layers.PReLU(slopes, shared_axes=[1, 2], name="bent")(x))
    entry = next(t for t in unpack(data).subgraphs[0].tensors if t.name == b"bent/alpha")
    integers = unpack(data).buffers[entry.buffer].data.view(np.int8)
    np.testing.assert_allclose(
        np.array(final.get_layer("bent").alpha).ravel(), integers * entry.quantization.scale[0], rtol=1e-6
    )
    assert scores["bent"].passed


def changed(data: bytes, name: str, change) -> bytes:
    model = unpack(data)
    tensor = next(tensor for tensor in model.subgraphs[0].tensors if tensor.name.decode() == name)
    change(model, tensor)
    return pack(model)


def scaled(factor: float):
    def change(model, tensor):
        tensor.quantization.scale = tensor.quantization.scale * np.float32(factor)

    return change


def shifted(model, tensor):
    tensor.quantization.zeroPoint = tensor.quantization.zeroPoint + 1


def moved_bias(model, tensor):
    buffer = model.buffers[tensor.buffer]
    buffer.data = (buffer.data.view(np.int32) + 300).view(np.uint8)


SPOILT = {
    "a kernel scale 3 % off": ("second/kernel", scaled(1.03), {"second"}),
    "a bias moved": ("second/bias", moved_bias, {"second"}),
    "a scale 3 % off": ("second", scaled(1.03), {"second", "flat"}),
    "a zero point one off": ("head", shifted, set()),
}


@pytest.mark.parametrize(("name", "change", "failing"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_file_fails_in_its_own_block_only(data, values, name, change, failing):
    scores = judge_tflite_blocks(changed(data, name, change), values, {"image": IMAGES[:16]})
    failed = {score.tensor for score in scores if not score.passed}
    # A tensor's own grid is also that of the integers it is judged by, so that the same error may cancel there.
    assert failed <= failing | {"flat"}
    assert failed or not failing


def test_a_file_changed_after_the_export_is_noticed(qat, folder, data, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.tflite").write_bytes(changed(data, "second/bias", moved_bias))
    with pytest.raises(TfqatError, match="changed after the export"):
        tfqat.verify(qat, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_off_is_refused(data, share):
    with pytest.raises(RunError, match=r"TFLite file|LiteRT"):
        TfliteRunner(data[: int(share * len(data))])


def test_inputs_that_do_not_fit_are_named(data):
    runner = TfliteRunner(data)
    with pytest.raises(RunError, match="image"):
        runner.run({"picture": IMAGES})
    with pytest.raises(RunError, match=r"\(1, 9, 8, 3\)"):
        runner.run({"image": np.zeros((1, 9, 8, 3), "float32")})
    with pytest.raises(RunError, match="1 inputs"):
        runner.named([IMAGES, IMAGES])
    assert runner.run({"image": IMAGES[:2]})["head"].shape == (2, 4)


@pytest.mark.parametrize("scale", [3.0, 20.0])
def test_zeros_that_a_hard_sigmoid_shifts_lie_on_an_integer(scale, tmp_path):
    """Half-way between two of them, where 255 steps have the middle of 0 to 6, each program rounds in its own way."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 8), name="image")
    gate = layers.Activation("hard_sigmoid", name="gate")(layers.Conv2D(16, 3, name="conv")(image))
    qat = tfqat.prepare(keras.Model(image, gate), "tflite")
    values = (np.random.default_rng(1).normal(size=(8, 8, 8, 8)) * scale).astype("float32")
    tfqat.calibrate(qat, [values], method="minmax")
    tfqat.export(qat, tmp_path)
    report = tfqat.verify(qat, tmp_path, values)
    assert report.passed, report
    assert "gate/relu6" in {score.tensor for score in report.rows[0].blocks}
    assert qat.placement.activations["gate/relu6"].narrow
