"""Rows: multiply-accumulates an image, counted by hand, so that the INT8 share is honest."""

import keras
import pytest
from keras import layers, ops

import tfqat


def model_of(shape, *made):
    x = inputs = keras.Input(shape)
    for layer in made:
        x = layer(x)
    return keras.Model(inputs, x)


class Own(layers.Layer):
    """A layer of the user's that nothing can be seen inside of."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1], 5))
        self.second = self.add_weight(shape=(5,))

    def call(self, inputs):
        return ops.matmul(inputs, self.first) * self.second


class PositionEmbedding(layers.Layer):
    """Adds what it has learned of each place."""

    def build(self, shape):
        self.table = self.add_weight(shape=(20, shape[-1]))

    def call(self, inputs):
        return inputs + self.table[: inputs.shape[1]]


class Centered(layers.Conv2D):
    """A kernel with its mean taken away at each call."""

    def call(self, inputs):
        return ops.conv(inputs, self.kernel - ops.mean(self.kernel))


@tfqat.quantizable
class Seen(Centered):
    """The same, looked into."""


COUNTS = {
    "dense": ((6,), [layers.Dense(4)], {"dense": 6 * 4}),
    "dense on tokens": ((7, 6), [layers.Dense(4)], {"dense": 7 * 6 * 4}),
    "dense on an open length": ((None, 6), [layers.Dense(4)], {"dense": 6 * 4}),
    "conv1d": ((8, 3), [layers.Conv1D(4, 3)], {"conv1d": 6 * 3 * 3 * 4}),
    "conv2d": ((8, 8, 3), [layers.Conv2D(4, 3, 2, padding="same")], {"conv2d": 16 * 27 * 4}),
    "conv2d of two groups": ((8, 8, 4), [layers.Conv2D(6, 3, groups=2)], {"conv2d": 36 * 9 * 2 * 6}),
    "conv3d": ((4, 4, 4, 2), [layers.Conv3D(3, 3)], {"conv3d": 8 * 27 * 2 * 3}),
    "depthwise": ((8, 8, 3), [layers.DepthwiseConv2D(3, depth_multiplier=2)], {"depthwise_conv2d": 36 * 9 * 3 * 2}),
    "transposed": ((4, 4, 3), [layers.Conv2DTranspose(5, 2, 2)], {"conv2d_transpose": 16 * 4 * 3 * 5}),
    "separable": ((8, 8, 3), [layers.SeparableConv2D(4, 3)], {"depthwise_conv2d": 36 * 27, "conv2d": 36 * 12}),
    # Four kernels of (3 + 5) x 5, once a step.
    "lstm": ((7, 3), [layers.LSTM(5)], {"lstm": 7 * 4 * (3 + 5) * 5}),
    "gru": ((7, 3), [layers.GRU(5)], {"gru": 7 * 3 * (3 + 5) * 5}),
    "simple rnn": ((7, 3), [layers.SimpleRNN(5)], {"simple_rnn": 7 * (3 + 5) * 5}),
    "convolutions in steps": (
        (6, 8, 8, 3),
        [layers.ConvLSTM2D(2, 3, padding="same")],
        {"conv_lstm2d": 384 * 9 * 5 * 8},
    ),
    "einsum that is no dense": ((7, 6), [layers.EinsumDense("btc,tcd->btd", (7, 4))], {"einsum_dense": 7 * 6 * 4}),
    "embedding": ((7,), [layers.Embedding(9, 4)], {"embedding": 0}),
    "a table of positions": ((7, 6), [PositionEmbedding()], {"custom_position_embedding": 0}),
    "a layer of the user's": ((7, 6), [Own()], {"custom_own": 7 * 6 * 5 + 5}),
    "a convolution of the user's": ((8, 8, 3), [Centered(4, 3, use_bias=False)], {"custom_centered": 36 * 27 * 4}),
    "a kernel that is computed": ((8, 8, 3), [Seen(4, 3, use_bias=False)], {"conv": 36 * 27 * 4}),
    "normalization": ((7, 6), [layers.LayerNormalization()], {"layer_normalization": 0}),
}


@pytest.mark.parametrize(("shape", "made", "expected"), COUNTS.values(), ids=COUNTS)
def test_counts(shape, made, expected):
    rows = tfqat.placement(model_of(shape, *made)).rows
    assert {kind: sum(row.macs for row in rows if row.kind == kind) for kind in expected} == expected
    assert sum(row.macs for row in rows) == sum(expected.values())


def test_both_products_of_an_attention_count():
    tokens = keras.Input((5, 16))
    model = keras.Model(
        tokens, layers.LayerNormalization()(layers.MultiHeadAttention(2, 4, value_dim=3)(tokens, tokens))
    )
    plan = tfqat.placement(model)
    assert [row.macs for row in plan.rows if row.kind == "matmul"] == [2 * 5 * 5 * 4, 2 * 5 * 5 * 3]
    assert plan.int8_mac_share == 1.0


def test_a_table_counts_as_a_projection_only_where_it_is_one():
    tokens = keras.Input((7,), dtype="int32")
    table = layers.ReversibleEmbedding(9, 4)
    model = keras.Model(tokens, layers.LayerNormalization()(table(table(tokens), reverse=True)))
    macs = {row.kind: row.macs for row in tfqat.placement(model).rows}
    assert macs == {"reversible_embedding": 0, "tied_projection": 7 * 4 * 9, "layer_normalization": 0}


def test_a_float_lstm_lowers_the_share():
    model = model_of((7, 3), layers.Dense(4), layers.LSTM(5), layers.Dense(3), layers.Dense(2))
    counts = {"int8": 7 * 3 * 4 + 5 * 3, "float": 7 * 4 * (4 + 5) * 5}
    share = counts["int8"] / (counts["int8"] + counts["float"])
    assert tfqat.placement(model).int8_mac_share == pytest.approx(share)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.MultiHeadAttention(2, 4, value_dim=3), 5 * 6 * 2 * (4 + 4 + 3 + 3) + 5 * 7 * 2 * (4 + 3)),
        (layers.GroupQueryAttention(4, 2, 1), 5 * 6 * 4 * (2 + 1 + 1 + 2) + 5 * 7 * 2 * (4 + 4)),
        (layers.Attention(), 5 * 7 * (6 + 6)),
    ],
    ids=["heads", "groups", "attention"],
)
def test_an_attention_that_stays_whole_counts_its_products(layer, expected, monkeypatch):
    monkeypatch.setattr("tfqat.view.view.is_composite", lambda operation: False)
    query, value = keras.Input((5, 6)), keras.Input((7, 6))
    result = layer([query, value]) if isinstance(layer, layers.Attention) else layer(query, value)
    rows = tfqat.placement(keras.Model([query, value], layers.LayerNormalization()(layers.Dense(2)(result)))).rows
    assert (rows[0].state, rows[0].macs) == ("float", expected)


def test_a_weight_alone_multiplies_nothing():
    tokens = keras.Input((5, 6))
    rows = tfqat.placement(keras.Model(tokens, layers.Dense(2)(layers.Dense(3)(Token()(tokens))))).rows
    assert [row.macs for row in rows if row.kind == "weight"] == [0]


@tfqat.quantizable
class Token(layers.Layer):
    """A learned token in front of the others."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]))

    def call(self, inputs):
        return ops.concatenate([ops.tile(self.token, (ops.shape(inputs)[0], 1, 1)), inputs], axis=1)
