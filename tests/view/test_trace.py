"""A call() that cannot be seen as a graph is refused with its line and what to change; one that can is seen right."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.view.view import view


class _Base(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = layers.Dense(4, name="dense")
        self.calls = 0


class BranchOnValue(_Base):
    def call(self, x):
        y = self.dense(x)
        if ops.sum(y) > 0:  # here
            y = -y
        return y


class LoopOnValue(_Base):
    def call(self, x):
        while ops.max(x) > 1:  # here
            x = x / 2
        return self.dense(x)


class ToNumpy(_Base):
    def call(self, x):
        return self.dense(x) * x.numpy().max()  # here


class TensorFlow(_Base):
    def call(self, x):
        return tf.nn.relu(self.dense(x))  # here


class TensorFlowOnCondition(_Base):
    def call(self, x):
        if self.dense.built: x = tf.nn.relu(x)  # here  # fmt: skip  # noqa: E701
        return self.dense(x)


class NumPy(_Base):
    def call(self, x):
        return self.dense(np.concatenate([x, x], axis=-1))  # here


class LoopOnBatch(_Base):
    def call(self, x):
        return sum(self.dense(x[i : i + 1]) for i in range(x.shape[0]))  # here


class NewWeight(_Base):
    def call(self, x):
        self.scale = self.add_weight(shape=(4,))  # here
        return self.dense(x) * self.scale


class NewLayer(_Base):
    def call(self, x):
        return layers.Dense(3)(x)  # here


class Random(_Base):
    def call(self, x):
        return self.dense(x) + keras.random.normal((4,))  # here


class PythonState(_Base):
    def call(self, x):
        self.calls += 1  # here
        return self.dense(x) * self.calls


class Training(_Base):
    def call(self, x, training=None):
        y = self.dense(x)
        return y * 2 if training else y  # here


class Constant(_Base):
    def call(self, x):
        return {"y": self.dense(x), "n": 3}  # here


class InAHelper(_Base):
    def call(self, x):
        return self._join(self.dense(x))

    def _join(self, x):
        return tf.concat([x, x], -1)  # here


class AddsLoss(_Base):
    def call(self, x):
        self.add_loss(ops.mean(x))  # here
        return self.dense(x)


class Updates(_Base):
    def __init__(self):
        super().__init__()
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.seen.assign_add(1.0)  # here
        return self.dense(x)


class NewAxis(_Base):
    def call(self, x):
        return self.dense(x[None])[0]  # here


class GivesABranchWhatItHas(_Base):
    def call(self, x):
        y = self.dense(x)
        return ops.cond(ops.max(y) > 0, lambda: y, lambda: -y)  # here


class LoopWithFunctions(_Base):
    def call(self, x):
        return ops.fori_loop(0, 3, lambda i, y: y * 0.5, self.dense(x))  # here


class NumberOfAValue(_Base):
    def call(self, x):
        return self.dense(x) * float(ops.max(x))  # here


class NumPyFunction(_Base):
    def call(self, x):
        return np.maximum(self.dense(x), 0.5)  # here


class TrainingPassedOnAndUsed(_Base):
    def __init__(self):
        super().__init__()
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=None):
        y = self.drop(self.dense(x), training=training)
        if training:  # here
            y = y * 2
        return y


REFUSED = {
    GivesABranchWhatItHas: r"functions to keras\.ops\.cond.*keras\.ops\.where.*small layer of yours",
    LoopWithFunctions: r"functions to keras\.ops\.fori_loop.*Python's for",
    NumberOfAValue: r"float\(\) and int\(\)",
    NumPyFunction: r"np\.concatenate -> keras\.ops\.concatenate",
    TrainingPassedOnAndUsed: r"otherwise in training than in evaluation",
    AddsLoss: r"add_loss\(\) in a small layer",
    Updates: r"small layer of yours",
    NewAxis: r"keras\.ops\.expand_dims",
    BranchOnValue: r"keras\.ops\.where",
    LoopOnValue: r"Python's for.*keras\.ops\.while_loop\) into a small layer",
    ToNumpy: r"leave \.numpy\(\) out",
    TensorFlow: r"tf\.nn\.relu -> keras\.ops\.relu",
    NumPy: r"np\.concatenate -> keras\.ops\.concatenate",
    LoopOnBatch: r"None until there is data.*fixed size",
    NewWeight: r"__init__\(\) or build\(\)",
    NewLayer: r"Make layers in __init__",
    Random: r"something else each time.*Dropout",
    PythonState: r"something else each time.*state",
    Training: r"otherwise in training than in evaluation",
    Constant: r"something besides tensors",
    InAHelper: r"keras\.ops",
}


def built(cls):
    model = cls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.build((None, 4))
    return model


@pytest.mark.parametrize("cls", REFUSED, ids=lambda cls: cls.__name__)
def test_a_call_that_cannot_be_traced_is_refused_with_its_line_and_what_to_change(cls):
    lines, first = inspect.getsourcelines(cls)
    offset = next(number for number, line in enumerate(lines) if line.rstrip().endswith("# here"))
    with pytest.raises(TfqatError, match=REFUSED[cls]) as error:
        view(built(cls))
    assert f"{__file__}:{first + offset}: `{lines[offset].split('#')[0].strip()}" in str(error.value)


@pytest.mark.parametrize("cls", [BranchOnValue, LoopOnValue], ids=lambda cls: cls.__name__)
def test_a_model_that_keras_itself_could_not_trace_is_refused_with_its_line_too(cls):
    model = cls()
    model(np.ones((2, 4), "float32"))
    with pytest.raises(TfqatError, match=rf"{__file__}:\d+.*{REFUSED[cls]}.*\(None, 4\).*model\.build"):
        view(model)


class InnerModel(_Base):
    def call(self, x, training=None):
        return self.dense(x)


class Layers(keras.Model):
    """Attributes that Keras makes of a compiled model, and the user's, have keys of all kinds."""

    def __init__(self):
        super().__init__(name="layers")
        self.inner = [InnerModel(), InnerModel()]
        self.gains = {1: self.add_weight(shape=(4,), name="one"), "two": self.add_weight(shape=(4,), name="two")}

    def call(self, x, training=None):
        return self.inner[1](self.inner[0](x) * self.gains[1]) * self.gains["two"]


def test_a_model_that_has_been_compiled_and_trained_is_seen_like_another():
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    model = Layers()
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    assert np.allclose(model(x), build(view(model))(x), atol=1e-6)


class CallsItsOwnGraph(keras.Model):
    """A functional model whose user has put something around its call."""

    def call(self, inputs, training=None, mask=None):
        return ops.tanh(super().call(inputs, training=training))


class CallsItsOwnLayers(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return ops.tanh(super().call(inputs, training=training))


def graph_with_tokens():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b", dtype="int32")
    rows = layers.Flatten()(layers.Embedding(4, 2)(b))
    return CallsItsOwnGraph({"a": a, "b": b}, layers.Dense(3)(layers.Concatenate()([a, rows])))


def stack_of_layers():
    return CallsItsOwnLayers([keras.Input((4,)), layers.Dense(3)])


@pytest.mark.parametrize("make", [graph_with_tokens, stack_of_layers])
def test_a_model_made_of_a_graph_with_a_call_of_its_own_is_seen_by_that_call(make):
    model, x = make(), np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    x = {"a": x, "b": np.array([[0, 2, 1], [3, 3, 0]])} if make is graph_with_tokens else x
    graph = view(model)
    assert graph.ops[-1].kind == "tanh"
    assert [graph.dtypes[name] for name in graph.inputs] == ["float32", "int32"][: len(graph.inputs)]
    assert np.allclose(model(x), build(graph)(x), atol=1e-6)


class NumPyFirst(_Base):
    """Takes NumPy's numbers on either side, as tensors of values do."""

    def call(self, x):
        y = np.sqrt(2.0) * self.dense(x) - np.float32(1) / (2 + ops.abs(x))
        return np.arange(4, dtype="float32") - y * np.ones(4, "float32")


def test_numpy_numbers_stand_on_either_side():
    model, x = NumPyFirst(), np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    model(x)
    assert np.allclose(model(x), build(view(model))(x), atol=1e-6)
    with pytest.raises(ValueError, match="symbolic"):
        np.sqrt(2.0) * keras.Input((4,))  # Keras is left as it was


class CallsAnActivation(_Base):
    def __init__(self, name):
        super().__init__()
        self.function = getattr(keras.activations, name)

    def call(self, x):
        return self.function(self.dense(x))


@pytest.mark.parametrize("name", ["hard_silu", "mish", "sparsemax", "gelu"])
def test_functions_of_keras_activations_are_seen_as_such(name):
    model, x = CallsAnActivation(name), np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    model(x)
    graph = view(model)
    assert [op.kind for op in graph.ops] == ["dense", name]
    assert np.allclose(model(x), build(graph)(x), atol=1e-6)


class DropsInTraining(_Base):
    """As Keras' guides have it."""

    def __init__(self):
        super().__init__()
        self.noise, self.drop = layers.GaussianNoise(1.0, name="noise"), layers.Dropout(0.5, name="drop")
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x, training=False):
        if training:
            x = self.noise(x, training=training)
        x = self.norm(self.dense(x), training=training)
        if training:
            x = self.drop(x)
        return x


def test_what_is_called_in_training_alone_and_does_nothing_else_is_seen(fresh_names):
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    model = built(DropsInTraining)
    model(x)
    graph = view(model)
    assert [op.name for op in graph.ops] == ["noise", "dense", "norm", "drop"]
    rebuilt = build(graph)
    assert np.allclose(model(x), rebuilt(x), atol=1e-6)
    assert (np.asarray(rebuilt(x, training=True)) == 0).any()
    assert np.abs(rebuilt.get_layer("norm").moving_mean).max() > 0


def test_a_model_of_unknown_shape_says_what_to_do():
    with pytest.raises(TfqatError, match=r"build\(shape\)"):
        view(_Base())


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__(name="two")
        self.dense = layers.Dense(3, name="dense")

    def call(self, left, right):
        return self.dense(left) - self.dense(right)


def test_a_call_of_two_arguments_is_refused_alone_and_seen_within_a_functional_model():
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    model = TwoArguments()
    model(x[0], x[1])
    with pytest.raises(TfqatError, match=r"left, right.*keras\.Model\(\[a, b\]"):
        view(model)
    a, b = keras.Input((4,)), keras.Input((4,))
    outer = keras.Model([a, b], model(a, right=b))
    assert np.allclose(outer([x[0], x[1]]), build(view(outer))([x[0], x[1]]), atol=1e-6)


class Frozen(keras.Model):
    """Its backbone is called with training=False: the statistics stay, whoever trains it."""

    def __init__(self):
        super().__init__(name="frozen")
        self.backbone = keras.Sequential(
            [layers.Dense(4, name="dense"), layers.BatchNormalization(name="norm"), layers.Dropout(0.9, name="drop")]
        )

    def call(self, x):
        return self.backbone(x, training=False)


def test_training_false_inside_of_a_call_is_kept():
    model = Frozen()
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32") + 3
    model(x)
    graph = view(model)
    assert [op.name for op in graph.ops] == ["sequential/dense", "sequential/norm"] or [
        op.kind for op in graph.ops
    ] == ["dense", "batch_normalization"]
    assert np.asarray(graph.ops[1].source.values[-1]) == 1.0  # the switch of tfqat's own BatchNormalization


class Bookkeeping(keras.Model):
    def __init__(self):
        super().__init__(name="bookkeeping")
        self.dense = layers.Dense(4, name="dense")
        self.gains = [self.add_weight(shape=(4,), initializer="ones", name=f"gain{i}") for i in range(2)]

    def call(self, inputs, training=None, mask=None):
        return {"sum": self.dense(inputs["a"]) * self.gains[0] + inputs["b"][0], "b": inputs["b"][1]}


def test_nests_of_inputs_and_outputs_and_weights_in_lists(fresh_names):
    draw = np.random.default_rng(0).normal
    x = {"a": draw(size=(2, 4)), "b": [draw(size=(2, 4)), draw(size=(2, 4))]}
    model = Bookkeeping()
    expected = model(x)
    graph = view(model)
    assert graph.inputs == ("a", "b_0", "b_1")
    assert type(graph.input_structure) is dict  # Keras takes its own kind of dict for another structure than x has
    received = build(graph)(x)
    for key in ("sum", "b"):
        assert np.allclose(expected[key], received[key], atol=1e-6)


class Cached(layers.Layer):
    """Gives None beside its result, as attention layers with a cache do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.project = layers.Dense(4)

    def build(self, shape):
        self.project.build(shape)
        self.gain = self.add_weight(shape=(4,), initializer="random_normal")

    def call(self, x, cache=None, training=None):
        return self.project(x) * self.gain, cache


class Decoder(layers.Layer):
    """A causal mask that is made for each image of the batch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Cached()

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        y, _ = self.inner(x)
        size = ops.shape(y)[1]
        places = ops.arange(size)
        mask = ops.broadcast_to(places[:, None] >= places[None], (ops.shape(x)[0], size, size))
        scores = ops.matmul(y, ops.transpose(y, (0, 2, 1)))
        return ops.matmul(ops.where(mask, ops.sigmoid(scores), 0.0), y)


def test_a_layer_inside_that_gives_none_is_called_right_through():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, Decoder()(inputs))
    graph = view(model)
    assert not [op.name for op in graph.ops if op.reason or op.kind.startswith("custom")]
    assert [op.kind for op in graph.ops].count("dense") == 1
    values = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    np.testing.assert_allclose(build(graph)(values), model(values), rtol=1e-5, atol=1e-6)
