"""Layers of the user's: which stay islands and why, which are seen inside, and that what is found computes the same."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops, tree

import tfqat
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.view.view import view

DRAW = np.random.default_rng(0).normal
SERIES, IMAGE = DRAW(size=(3, 6, 8)).astype("float32"), DRAW(size=(3, 8, 8, 3)).astype("float32")


@tfqat.quantizable
class Projection(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")
        self.bias = self.add_weight(shape=(5,), initializer="random_normal", name="bias")
        self.gain = self.add_weight(shape=(5,), initializer="random_normal", name="gain")
        self.table = self.add_weight(shape=(9, 5), initializer="random_normal", name="table")

    def call(self, x):
        return ops.relu(ops.matmul(x, self.kernel) + self.bias) * self.gain + self.table[:6]


@tfqat.quantizable
class UsedTwice(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return ops.matmul(ops.matmul(x, self.kernel), ops.transpose(self.kernel))


@tfqat.quantizable
class Convolutions(layers.Layer):
    def build(self, shape):
        self.conv = self.add_weight(shape=(3, 3, shape[-1], 8))
        self.bias = self.add_weight(shape=(8,), initializer="random_normal")
        self.depthwise = self.add_weight(shape=(3, 3, 8, 2))
        self.transposed = self.add_weight(shape=(2, 2, 4, 16))
        self.mix, self.last = self.add_weight(shape=(3, 4)), self.add_weight(shape=(2, 3))

    def call(self, x):
        x = ops.conv(x, self.conv, strides=2, padding="same") + self.bias
        x = ops.conv_transpose(ops.depthwise_conv(x, self.depthwise, padding="same"), self.transposed, strides=2)
        return ops.tensordot(ops.einsum("ec,bhwc->bhwe", self.mix, x), self.last, axes=[[3], [1]])


class Token(layers.Layer):
    """Reckons with the batch's size, calls a layer on a constant, and adds a weight in front."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.places = layers.Dense(8), layers.Embedding(7, 8)

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, 8), initializer="random_normal", name="token")
        self.dense.build(shape)
        self.places.build((1, 7))
        self.numbers = ops.expand_dims(ops.arange(7), 0)

    def call(self, x):
        batch = ops.shape(x)[0]
        x = ops.reshape(self.dense(x), (batch, -1, 8))
        return ops.concatenate([ops.tile(self.token, (batch, 1, 1)), x], axis=1) + self.places(self.numbers)


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention, self.norm = layers.MultiHeadAttention(2, 4, dropout=0.1), layers.LayerNormalization()
        self.feed = keras.Sequential([layers.Dense(16, activation="gelu"), layers.Dense(8), layers.Dropout(0.1)])

    def call(self, x, training=None, mask=None):
        x = x + self.attention(x, x, training=training)
        return self.norm(x + self.feed(x, training=training))


class Narrow(layers.Conv2D):
    """Computes what Conv2D computes."""

    def __init__(self, filters, **kwargs):
        super().__init__(filters, 3, **{key: value for key, value in kwargs.items() if key == "name"})


class Conv2D(layers.Conv2D):
    """Computes something else under the same name."""

    def call(self, x):
        return 2 * super().call(x)


class Plain(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5))

    def call(self, x):
        return ops.matmul(x, self.kernel)


class Tied(layers.Layer):
    """Reads a weight of a layer inside past the graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(6)

    def call(self, x):
        return ops.matmul(self.dense(x), ops.transpose(self.dense.kernel))


class Switch(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(6)

    def call(self, x, training=None):
        return self.dense(x) * (2 if training else 1)


@tfqat.quantizable
def doubled(x):
    return ops.relu(x * 2) + ops.mean(x, axis=-1, keepdims=True)


CONVOLUTIONS = """
    l/conv:conv2d l/depthwise_conv:depthwise_conv2d l/conv_transpose:conv2d_transpose l/einsum:dense l/tensordot:dense
"""
INSIDE = {
    "projection": (
        lambda: Projection(name="l"),
        SERIES,
        "l/matmul:dense l/relu:relu l/multiply:multiply_constant l/add:add_constant",
    ),
    "used_twice": (
        lambda: UsedTwice(name="l"),
        SERIES,
        "l/kernel:weight l/matmul:matmul l/transpose:transpose l/matmul_1:matmul",
    ),
    "token": (lambda: Token(name="l"), SERIES, None),
    "convolutions": (lambda: Convolutions(name="l"), IMAGE, CONVOLUTIONS),
    "block": (lambda: Block(name="l"), SERIES, None),
    "harmless_subclass": (lambda: Narrow(4, name="l"), IMAGE, "l:conv2d"),
    "lambda": (
        lambda: layers.Lambda(doubled, name="l"),
        SERIES,
        "l/multiply:multiply_constant l/relu:relu l/mean:mean l/add:add",
    ),
}


ISLANDS = {
    "plain": (lambda: Plain(name="l"), SERIES, "custom_plain", "@tfqat.quantizable"),
    "same_name": (lambda: Conv2D(4, 3, name="l"), IMAGE, "custom_conv2d", "@tfqat.quantizable"),
    "tied": (lambda: Tied(name="l"), SERIES, "custom_tied", "on other weights"),
    "switch": (lambda: Switch(name="l"), SERIES, "custom_switch", "`return self.dense(x) * (2 if training else 1)`"),
    "lambda": (lambda: layers.Lambda(lambda x: 2 * x, name="l"), SERIES, "lambda", "@tfqat.quantizable"),
}


def model_of(layer, x):
    inputs = keras.Input(x.shape[1:], name="x")
    return keras.Model(inputs, layer(inputs))


def assert_same(model, rebuilt, x):
    for a, b in zip(tree.flatten(model(x)), tree.flatten(rebuilt(x)), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_found_inside_computes_the_same_and_loads_without_the_class(fresh_names, tmp_path, name):
    make, x, expected = INSIDE[name]
    model = model_of(make(), x)
    graph = view(model)
    assert not [op.reason for op in graph.ops if op.reason]
    assert not [op.kind for op in graph.ops if op.kind.startswith("custom")]
    if expected is not None:
        assert " ".join(f"{op.name}:{op.kind}" for op in graph.ops) == " ".join(expected.split())
    rebuilt = build(graph)
    assert_same(model, rebuilt, x)
    shapes = lambda m: sorted(int(np.prod(v.shape)) for v in m.trainable_variables)  # noqa: E731
    assert shapes(rebuilt) == shapes(model)
    rebuilt.save(tmp_path / "m.keras")
    assert_same(model, keras.models.load_model(tmp_path / "m.keras"), x)
    assert sorted(op.name for op in view(rebuilt).ops) == sorted(op.name for op in graph.ops)


def test_a_program_that_has_only_imported_tfqat_loads_what_was_found(fresh_names, tmp_path):
    model = build(view(model_of(Token(name="l"), SERIES)))
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "m.npz", x=SERIES, y=np.asarray(model(SERIES)))
    code = "import sys, tfqat, keras, numpy as np; d = np.load(sys.argv[2]); m = keras.models.load_model(sys.argv[1])"
    check = "assert np.allclose(m(d['x']), d['y'], atol=1e-5)"
    files = [str(tmp_path / name) for name in ("m.keras", "m.npz")]
    subprocess.run([sys.executable, "-c", f"{code}; {check}", *files], check=True)


@pytest.mark.parametrize("name", ISLANDS)
def test_what_cannot_be_seen_stays_whole_with_its_reason(fresh_names, name):
    make, x, kind, reason = ISLANDS[name]
    model = model_of(make(), x)
    graph = view(model)
    assert [(op.name, op.kind) for op in graph.ops] == [("l", kind)]
    assert reason in graph.ops[0].reason
    assert_same(model, build(graph), x)


def test_the_placement_says_why_an_island_stays_float(fresh_names):
    inputs = keras.Input((6, 8))
    x = layers.Dense(8, name="before")(Plain(name="mine")(inputs))
    plan = tfqat.placement(keras.Model(inputs, layers.Dense(2, name="after")(x)))
    row = next(row for row in plan.rows if row.op == "mine")
    assert (row.state, row.reason) == ("float", view_reason("Plain"))


def view_reason(name):
    return f"custom layer {name}: tfqat looks into it only where the class is decorated with @tfqat.quantizable"


def test_calls_of_one_registered_layer_share_its_weights(fresh_names):
    a, b = keras.Input((6, 8)), keras.Input((6, 8))
    layer = Projection(name="l")
    model = keras.Model([a, b], layer(a) + layer(b))
    rebuilt = build(view(model))
    assert len(rebuilt.trainable_variables) == len(model.trainable_variables) == 4
    assert_same(model, rebuilt, [SERIES, SERIES[::-1]])


class Forgetful(Plain):
    """Its config says nothing of its size."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return ops.matmul(x, self.table)

    def get_config(self):
        return super().get_config()


def test_a_layer_whose_config_lacks_its_arguments_is_named(fresh_names):
    graph = view(model_of(Forgetful(5, name="l"), SERIES))
    with pytest.raises(TfqatError, match=r"'l' \(Forgetful\).*\(8, 3\).*\(8, 5\).*get_config"):
        build(graph)


@pytest.mark.parametrize("target", [3, "Dense", layers.Dense(2)])
def test_only_classes_of_layers_and_functions_are_registered(target):
    with pytest.raises(TfqatError, match=r"subclass of keras\.layers\.Layer"):
        tfqat.quantizable(target)


def test_a_registered_layer_that_cannot_be_seen_is_an_error(fresh_names):
    @tfqat.quantizable
    class Raw(Plain):
        def call(self, x):
            return tf.nn.relu(x)

    with pytest.raises(TfqatError, match=r"(?s)Raw.*quantizable.*test_custom\.py:\d+.*tf\.nn\.relu -> keras\.ops"):
        view(model_of(Raw(), SERIES))


def test_gradients_reach_every_weight_as_in_the_float_model(fresh_names):
    model = model_of(Projection(name="l"), SERIES)
    rebuilt = build(view(model))
    norms = []
    for each in (model, rebuilt):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(each(SERIES, training=True)))
        gradients = tape.gradient(loss, [v.value for v in each.trainable_variables])
        norms.append(sorted(float(tf.norm(gradient)) for gradient in gradients))
    assert np.allclose(*norms, rtol=1e-5)


class Windows(layers.Layer):
    """Takes its own arguments alone, as many a layer is written."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, x):
        return ops.reshape(ops.image.extract_patches(x, size=self.size), (-1, 16, self.size * self.size * 3))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_layer_that_takes_none_of_keras_own_arguments_is_kept(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input((8, 8, 3))
        model = keras.Model(image, layers.Dense(2, dtype="float32")(layers.Dense(4)(Windows(2)(image))))
        qat = tfqat.prepare(model)
    finally:
        keras.config.set_dtype_policy("float32")
    own = next(layer for layer in qat.layers if isinstance(layer, Windows))
    assert own.size == 2
    assert own.name == model.layers[1].name
    assert own.dtype_policy.name == policy
    np.testing.assert_allclose(build(view(model))(IMAGE), model(IMAGE), rtol=1e-2)
    tfqat.calibrate(qat, [IMAGE])
    qat.save(tmp_path / "qat.keras")
    loaded = tfqat.load_model(tmp_path / "qat.keras", custom_objects={"Windows": Windows})
    np.testing.assert_array_equal(loaded(IMAGE), qat(IMAGE))
    assert next(layer for layer in loaded.layers if isinstance(layer, Windows)).dtype_policy.name == policy
