"""Attention: products in other words, seen as matmul and built again, compute what Keras computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfqat
from tfqat.graph.build import build
from tfqat.view.view import view


def model_of(function, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, function(*inputs))


def batch_of(model, size=3):
    rng = np.random.default_rng(0)
    shapes = [[size, *(axis or 7 for axis in tensor.shape[1:])] for tensor in model.inputs]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


HEADS, FEWER = (5, 4, 8), (6, 4, 8)  # queries, keys and values of four heads of width 8
PRODUCTS = {
    "einsum, scores": (lambda key, query: ops.einsum("aecd,abcd->acbe", key, query), FEWER, HEADS),
    "einsum, context": (lambda p, value: ops.einsum("acbe,aecd->abcd", p, value), (4, 5, 6), FEWER),
    "einsum, axes merged": (lambda a, b: ops.einsum("bxyc,bkcd->bxykd", a, b), (6, 2, 4), (5, 4, 3)),
    "einsum, two axes summed": (lambda a, b: ops.einsum("bxyc,bxycd->bd", a, b), (6, 2, 4), (6, 2, 4, 3)),
    "einsum, vectors": (lambda a, b: ops.einsum("bc,bc->b", a, b), (6,), (6,)),
    "einsum, ellipsis": (lambda a, b: ops.einsum("...qc,...kc->...qk", a, b), (3, 6, 2), (3, 5, 2)),
    "einsum, open lengths": (lambda a, b: ops.einsum("btnd,bsnd->bnts", a, b), (None, 2, 6), (None, 2, 6)),
    "dot of last axes": (lambda a, b: layers.Dot(axes=-1)([a, b]), (3, 6), (5, 6)),
    "dot of other axes": (lambda a, b: layers.Dot(axes=(1, 2))([a, b]), (3, 6), (4, 3)),
    "dot of vectors": (lambda a, b: layers.Dot(axes=1)([a, b]), (6,), (6,)),
    "dot of four axes": (lambda a, b: layers.Dot(axes=(3, 1))([a, b]), (2, 3, 6), (6,)),
    "cosine": (lambda a, b: layers.Dot(axes=1, normalize=True)([a, b]), (6,), (6,)),
    "cosine of matrices": (lambda a, b: layers.Dot(axes=(2, 1), normalize=True)([a, b]), (3, 6), (6, 5)),
    "attention": (lambda q, k, v: ops.dot_product_attention(q, k, v), HEADS, FEWER, FEWER),
    "attention, causal": (
        lambda q, k, v: ops.dot_product_attention(q, k, v, scale=0.3, is_causal=True),
        *(HEADS, FEWER, FEWER),
    ),
    "attention, causal, open lengths": (
        lambda q, k, v: ops.dot_product_attention(q, k, v, is_causal=True),
        *[(None, 4, 8)] * 3,
    ),
    "attention of groups": (
        lambda q, k, v: ops.dot_product_attention(q, k, v),
        *(HEADS, (6, 2, 8), (6, 2, 8)),
    ),
    "attention, masked": (
        lambda q, k, v, m: ops.dot_product_attention(q, k, v, mask=ops.reshape(m > 0, (-1, 1, 1, 6))),
        *(HEADS, FEWER, FEWER, (6,)),
    ),
    "attention, fixed mask": (
        lambda q, k, v: ops.dot_product_attention(q, k, v, mask=np.tri(5, 6, dtype=bool)[None, None]),
        *(HEADS, FEWER, FEWER),
    ),
    "attention, biased": (
        lambda q, k, v, b: ops.dot_product_attention(q, k, v, bias=ops.reshape(b, (-1, 1, 5, 6))),
        *(HEADS, FEWER, FEWER, (30,)),
    ),
    "matrices": (lambda a, b: ops.matmul(a, b), (3, 6), (6, 5)),
    "matrices of matrices": (lambda a, b: ops.matmul(a, b), (2, 2, 3, 6), (2, 2, 6, 5)),
    "factors in front": (
        lambda q, k: ops.matmul(ops.transpose(q * 0.5, (0, 2, 1, 3)), ops.transpose(k / 3.0, (0, 2, 3, 1))),
        *(HEADS, FEWER),
    ),
}


@pytest.mark.parametrize(("function", "shapes"), [(f, s) for f, *s in PRODUCTS.values()], ids=PRODUCTS)
def test_a_product_is_matmul_and_computes_the_same(function, shapes):
    model = model_of(function, *shapes)
    graph = view(model)
    kinds = [op.kind for op in graph.ops]
    assert "matmul" in kinds
    assert not {"einsum", "dot", "tensordot", "dot_product_attention"} & set(kinds)
    again, batch = build(graph), batch_of(model)
    np.testing.assert_allclose(again(batch), model(batch), rtol=1e-5, atol=1e-6)
    for op in view(again).ops:  # what the graph says of shapes is what Keras finds
        assert [graph.shapes[t] for t in op.outputs] == [view(again).shapes[t] for t in op.outputs]
    assert {op.name for op in view(again).ops} == {op.name for op in graph.ops}


NO_PRODUCTS = {
    "an outer product": (lambda a, b: ops.einsum("bi,bj->bij", a, b), "sums over nothing", (3,), (4,)),
    "kernel a position": (lambda a, b: ops.einsum("bij,bij->bij", a, b), "sums over nothing", (3, 4), (3, 4)),
    "over the batch": (lambda a, b: ops.einsum("bi,bj->ij", a, b), "does not keep the batch apart", (3,), (4,)),
}


@pytest.mark.parametrize(
    ("function", "reason", "shapes"), [(f, r, s) for f, r, *s in NO_PRODUCTS.values()], ids=NO_PRODUCTS
)
def test_what_is_no_product_is_float_and_says_why(function, reason, shapes):
    model = model_of(
        lambda a, b: ops.concatenate([layers.Dense(2)(ops.reshape(function(a, b), (-1, 12)))], -1), *shapes
    )
    row = next(row for row in tfqat.placement(model).rows if row.kind == "einsum")
    assert row.state == "float"
    assert reason in row.reason


@pytest.mark.parametrize(
    ("kind", "product"),
    [("matmul", lambda x, c: ops.matmul(x, c)), ("einsum", lambda x, c: ops.einsum("btc,cd->btd", x, c))],
    ids=["matmul", "einsum"],
)
def test_a_product_with_a_constant_is_float_and_counts(kind, product):
    """Its numbers would stand in the files without a scale."""
    tokens = keras.Input((5, 8))
    x = product(layers.Dense(8)(tokens), np.ones((8, 6), "float32"))
    row = next(row for row in tfqat.placement(keras.Model(tokens, layers.Dense(2)(x))).rows if row.kind == kind)
    assert row.state == "float"
    assert "with a constant" in row.reason
    assert row.macs >= 5 * 8


def attention(**options):
    tokens = keras.Input((5, 16), name="tokens")
    x = layers.Dense(16, name="stem")(tokens)
    x = layers.MultiHeadAttention(2, 8, name="mha", **options)(x, x)
    return keras.Model(tokens, layers.Dense(3, name="head")(x))


def test_the_parts_of_an_attention_have_names():
    inside = [op.name for op in view(attention()).ops if op.name.startswith("mha/dot_product_attention")]
    words = "query key value scores scale softmax context".split()
    assert inside == [*(f"mha/dot_product_attention/{word}" for word in words), "mha/dot_product_attention"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_query_of_an_attention_has_one_quantizer(dropout):
    """With dropout Keras multiplies the query before the product; the factor goes behind it."""
    plan = tfqat.placement(attention(dropout=dropout))
    assert [tensor for tensor in plan.activations if "query" in tensor] == ["mha/query"]
    assert [row.state for row in plan.rows if row.kind == "matmul"] == ["int8", "int8"]
    first, second = (row for row in plan.rows if row.kind == "matmul")
    assert first.reason == "fused with multiply_constant, softmax"
    assert second.reason == "own range"
    assert len(plan.observed) == 2  # the scores before and after their factor
    assert plan.int8_mac_share == 1.0


def test_a_factor_that_others_read_stays_in_front():
    def function(a, b):
        scaled = a * 0.5
        return ops.matmul(scaled, b), scaled

    graph = view(model_of(function, (3, 6), (6, 5)))
    assert [op.kind for op in graph.ops] == ["multiply_constant", "matmul"]


def between(function, *inputs):
    """A Dense in front and one behind, so that what lies between is no output."""
    return keras.Model(list(inputs), layers.Dense(2, name="head")(layers.Flatten()(function(*inputs))))


def images(name="images"):
    return keras.Input((3, 4, 8), name=name)


SCORES = {
    "over two axes": lambda: between(lambda x: layers.MultiHeadAttention(2, 4, attention_axes=(1, 2))(x, x), images()),
    "over two axes, masked": lambda: between(
        lambda x, mask: layers.MultiHeadAttention(2, 4, attention_axes=(1, 2))(x, x, attention_mask=mask),
        *(images(), keras.Input((3, 4, 3, 4), dtype="bool", name="mask")),
    ),
    "over one of two axes": lambda: between(
        lambda x: layers.MultiHeadAttention(2, 4, attention_axes=2, dropout=0.1)(x, x), images()
    ),
    "windows with a bias and a mask": lambda: between(windows, keras.Input((16, 8), name="tokens")),
    "divided by a double": lambda: between(divided, keras.Input((5, 8), name="tokens")),
    "keys first": lambda: between(keys_first, keras.Input((5, 8), name="tokens")),
}


def windows(tokens):
    """Four windows of four tokens, as a Swin transformer has them."""
    x = ops.reshape(tokens, (-1, 4, 8))
    query, key, value = (layers.Dense(8)(x) for _ in range(3))
    scores = ops.matmul(query, ops.swapaxes(key, 1, 2)) * 0.3 + np.linspace(-1, 1, 16).reshape(4, 4)
    scores = ops.reshape(scores, (-1, 4, 4, 4)) + np.linspace(0, -100, 64, dtype="float32").reshape(4, 4, 4)
    weights = ops.softmax(ops.reshape(scores, (-1, 4, 4)))
    return ops.reshape(ops.matmul(weights, value), (-1, 16, 8))


def divided(tokens):
    query, key, value = (layers.Dense(8)(tokens) for _ in range(3))
    scores = ops.matmul(query, ops.swapaxes(key, 1, 2)) / np.sqrt(8) + np.triu(np.ones((5, 5)), 1) * -1e9
    return ops.matmul(ops.softmax(scores), value)


def keys_first(tokens):
    query, key, value = (layers.Dense(8)(tokens) for _ in range(3))
    weights = ops.softmax(ops.einsum("bqd,bkd->bkq", query, key) * 0.3, axis=1)
    return ops.einsum("bkq,bkd->bqd", weights, value)


def given_to(model):
    rng = np.random.default_rng(0)
    shapes = [(3, *tensor.shape[1:]) for tensor in model.inputs]
    return [
        rng.random(shape) < 0.7 if tensor.dtype == "bool" else rng.normal(size=shape).astype("float32")
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]


@pytest.mark.parametrize("name", SCORES)
def test_nothing_is_quantized_between_scores_and_softmax(name):
    model = SCORES[name]()
    plan, given = tfqat.placement(model), given_to(model)
    first = next(row for row in plan.rows if row.kind == "matmul")
    assert first.reason.startswith("fused with")
    assert first.reason.endswith("softmax")
    softmax = next(row.op for row in plan.rows if row.kind in ("softmax", "masked_softmax"))
    rows = [row.op for row in plan.rows]
    assert set(rows[rows.index(first.op) : rows.index(softmax)]) & set(plan.activations) <= {
        row.op for row in plan.rows if row.kind in ("dense", "permute", "reshape")
    }
    assert softmax in plan.activations
    assert plan.int8_mac_share == 1.0
    np.testing.assert_allclose(build(view(model))(given), model(given), rtol=1e-5, atol=1e-6)


def test_a_softmax_over_several_axes_is_one_over_those_merged():
    kinds = [op.kind for op in view(SCORES["over two axes"]()).ops]
    position = kinds.index("softmax")
    assert kinds[position - 1] == kinds[position + 1] == "reshape"
    softmax = next(op for op in view(SCORES["over two axes"]()).ops if op.kind == "softmax")
    assert softmax.source.config["axis"] == -1


def test_numpys_double_precision_stays_out_of_the_graph():
    model = SCORES["divided by a double"]()
    constants = [
        value for op in view(model).ops for value in (*op.args, *op.kwargs.values()) if hasattr(value, "dtype")
    ]
    assert constants
    assert {str(value.dtype) for value in constants} == {"float32"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_split_and_trains(policy):
    with_policy = keras.dtype_policies.DTypePolicy(policy)
    tokens = keras.Input((5, 8))
    x = layers.Dense(8, dtype=with_policy)(tokens)
    for options in ({}, {"dropout": 0.1}):
        x = layers.MultiHeadAttention(2, 4, dtype=with_policy, **options)(x, x, use_causal_mask=True)
    x = layers.Attention(dtype=with_policy)([x, layers.Dense(8, dtype=with_policy)(x)], use_causal_mask=True)
    model = keras.Model(tokens, layers.Dense(3, dtype="float32")(x))
    plan = tfqat.placement(model)
    assert [row.state for row in plan.rows if row.kind == "matmul"] == ["int8"] * 6
    assert plan.int8_mac_share == 1.0
    batch = np.random.default_rng(0).normal(size=(4, 5, 8)).astype("float32")
    np.testing.assert_allclose(build(view(model))(batch), model(batch), atol=0.05)
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, [batch])
    qat.compile("sgd", "mse")
    assert np.isfinite(qat.fit(batch, np.zeros((4, 5, 3)), verbose=0).history["loss"][0])
    assert {str(t.dtype) for t in tfqat.finalize(qat).outputs} == {"float32"}
