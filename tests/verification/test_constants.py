"""What depends on no input of the model is a number in every file, and the files agree with the trained model."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops

import tfqat

TARGETS = ("tensorrt", "tensorrt_dla", "sima", "tflite")


class Positions(layers.Layer):
    """A row of a table for each place, as in Keras' transformer examples."""

    def __init__(self, places, width, **kwargs):
        super().__init__(**kwargs)
        self.places = layers.Embedding(places, width, name="places")

    def call(self, x):
        return x + self.places(ops.arange(0, ops.shape(x)[1], 1))


@tfqat.quantizable
class Gate(layers.Layer):
    """A weight that two ops read, so that it is a tensor of its own; parts of it, their sum."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(4, 12), name="gate", initializer="normal")

    def call(self, x):
        left, right = ops.split(self.gate, 2, axis=-1)
        return x * ops.sigmoid(self.gate) + ops.concatenate([right, left], axis=-1) + ops.sum(self.gate)


@tfqat.quantizable
class Join(layers.Layer):
    """Tokens of its own behind those of six images."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(4, 12, name="table")

    def call(self, x):
        return ops.concatenate([x, ops.broadcast_to(ops.expand_dims(self.table(ops.arange(4)), 0), (6, 4, 12))], axis=1)


def finished(x, y):
    y = layers.Dense(12, activation="relu", name="mid")(y)
    return keras.Model(x, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D(name="pool")(y)))


def tokens():
    x = keras.Input((4,), dtype="int32", name="tokens")
    return finished(x, Positions(4, 12, name="positions")(layers.Embedding(20, 12, name="table")(x)))


def patches():
    x = keras.Input((8, 8, 1), name="image")
    y = layers.Reshape((4, 12), name="flat")(layers.Conv2D(12, 4, 4, name="patches")(x))
    return finished(x, Positions(4, 12, name="positions")(y))


def gated():
    x = keras.Input((4, 12), name="x")
    return finished(x, Gate(name="gate")(layers.Dense(12, name="stem")(x)))


def joined():
    """Of a batch whose size is known, so that what is repeated for it is a constant, too."""
    x = keras.Input(batch_shape=(6, 4, 12), name="x")
    return finished(x, Join(name="join")(layers.Dense(12, name="stem")(x)))


def batch_for(model):
    rng, (x,) = np.random.default_rng(0), model.inputs
    shape = (6, *x.shape[1:])
    return rng.integers(0, 20, shape) if x.dtype == "int32" else rng.normal(size=shape).astype("float32")


CASES = [(f, t) for f in (tokens, patches, gated, joined) for t in TARGETS if (f, t) != (tokens, "tflite")]


@pytest.mark.parametrize(("function", "target"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_files_hold_numbers_and_agree_with_the_trained_model(function, target, tmp_path):
    keras.utils.set_random_seed(0)
    model = function()
    batch = batch_for(model)
    qat = tfqat.prepare(model, target)
    tfqat.calibrate(qat, [batch])
    qat.compile("sgd", "mse", run_eagerly=True)
    qat.train_on_batch(batch, np.ones((6, 3), "float32"))
    tfqat.export(qat, tmp_path, calibration=[batch] if target == "tensorrt_dla" else None)
    report = tfqat.verify(qat, tmp_path, batch)
    assert report.passed, report
    assert all(row.judged and row.blocks for row in report.rows), report
    for path in tmp_path.glob("*.onnx"):
        assert no_node_of_constants(onnx.load(path)), path


def no_node_of_constants(model):
    """Whether each node reads something else than numbers, Q/DQ of kernels aside."""
    known = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    return not any(known.issuperset(node.input) for node in nodes)
