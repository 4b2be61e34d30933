"""Attention calls: layers whose masks have no size yet, or that draw dropout by themselves, are seen inside."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfqat
from tfqat.graph.build import build
from tfqat.view.view import view


def to_itself(layer, **call):
    tokens = keras.Input((None, 8))
    x = layers.Dense(8)(tokens)
    given = ([x, x],) if isinstance(layer, layers.Attention) else (x, x)
    return keras.Model(tokens, layers.Dense(2)(layer(*given, **call)))


def padded(layer):
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(tokens)
    given = ([x, x],) if isinstance(layer, layers.Attention) else (x, x)
    return keras.Model(tokens, layers.Dense(2)(layer(*given, use_causal_mask=True)))


CAUSAL = {
    "heads, with dropout": lambda: to_itself(layers.MultiHeadAttention(2, 4, dropout=0.1), use_causal_mask=True),
    "heads in a window": lambda: to_itself(layers.MultiHeadAttention(2, 4, sliding_window=2), use_causal_mask=True),
    "heads on padding": lambda: padded(layers.MultiHeadAttention(2, 4)),
    "groups": lambda: to_itself(layers.GroupQueryAttention(4, 4, 2, dropout=0.1), use_causal_mask=True),
    "groups in a window": lambda: to_itself(layers.GroupQueryAttention(4, 4, 2, sliding_window=3)),
    "attention": lambda: to_itself(layers.Attention(), use_causal_mask=True),
    "attention on padding": lambda: padded(layers.Attention(dropout=0.1)),
    "additive": lambda: to_itself(layers.AdditiveAttention(), use_causal_mask=True),
}


def batch_of(model, length):
    rng = np.random.default_rng(length)
    shape = (3, length, *model.input_shape[2:])
    return rng.normal(size=shape).astype("float32") if len(shape) == 3 else rng.integers(0, 9, shape)


@pytest.mark.parametrize("name", CAUSAL)
def test_masks_over_open_lengths_are_seen(name, tmp_path):
    model = CAUSAL[name]()
    graph = view(model)
    assert not [op.reason for op in graph.ops if op.reason]
    assert "matmul" in [op.kind for op in graph.ops]
    again = build(graph)
    again.save(tmp_path / "again.keras")
    loaded = keras.models.load_model(tmp_path / "again.keras")
    for length in (1, 5, 8):
        batch = batch_of(model, length)
        np.testing.assert_allclose(again(batch), model(batch), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(loaded(batch), again(batch))
    rows = [row for row in tfqat.placement(model).rows if row.kind == "matmul"]
    assert {row.state for row in rows} == {"int8"}
    assert len(rows) == (1 if name == "additive" else 2)


@pytest.mark.parametrize("make", [layers.Attention, layers.AdditiveAttention], ids=lambda cls: cls.__name__)
def test_dropout_of_an_attention_is_a_layer(make):
    layer = make(dropout=0.5, name="l")
    model = to_itself(layer)
    again = build(view(model))
    batch = batch_of(model, 6)
    assert [op.name for op in view(model).ops if op.kind == "dropout"] == ["l/dropout"]
    np.testing.assert_allclose(again(batch), model(batch), rtol=1e-5, atol=1e-6)
    first, second = (np.asarray(again(batch, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    assert not [name for name in vars(layer) if name in ("_apply_scores", "_calculate_scores", "_calculate_score_mask")]


def test_calls_of_one_attention_share_its_dropout():
    tokens, layer = keras.Input((4, 8)), layers.Attention(dropout=0.5, name="l")
    model = keras.Model(tokens, layers.Dense(2)(layer([tokens, layer([tokens, tokens])])))
    assert [op.layer_name for op in view(model).ops if op.kind == "dropout"] == ["l/dropout", "l/dropout"]


def test_a_mask_of_a_subclass_stays_its_own():
    @keras.saving.register_keras_serializable("test_attention_calls")
    class Backwards(layers.MultiHeadAttention):
        def _compute_causal_mask(self, query, value=None):
            places = ops.cumsum(ops.ones_like(ops.max(query, axis=list(range(2, len(query.shape))))), axis=1)
            return ops.expand_dims(places, 2) <= ops.expand_dims(places, 1)

    model = to_itself(Backwards(2, 4, dropout=0.1), use_causal_mask=True)
    batch = batch_of(model, 5)
    np.testing.assert_allclose(build(view(model))(batch), model(batch), rtol=1e-5, atol=1e-6)
