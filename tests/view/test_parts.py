"""Parts of composite layers: what is built from them computes what the layer did."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfqat.graph.build import build
from tfqat.view.einsum_dense import Contraction, contraction_of
from tfqat.view.view import view

NORMAL = "random_normal"
SIZES = dict(zip("bcdefgh", (3, 2, 4, 5, 6, 7, 8), strict=True))


def model_of(layer, *shape):
    inputs = keras.Input(shape, name="x")
    return keras.Model(inputs, layer(inputs))


def assert_rebuilt_is_equal(model, *sizes):
    x = np.random.default_rng(0).normal(size=(2, *sizes)).astype("float32")
    graph = view(model)
    rebuilt = build(graph)
    expected = np.asarray(model(x))
    assert np.allclose(rebuilt(x), expected, rtol=1e-5, atol=1e-5)
    known = graph.shapes[graph.outputs[0]]
    assert all(size in (None, found) for size, found in zip(known, expected.shape, strict=True))
    return [(op.name, op.kind) for op in graph.ops]


EQUATIONS = {
    "abc,cd->abd": ((3, 4), (3, 5), "d", ["dense"]),
    "...x,xy->...y": ((3, 4), (5,), "y", ["dense"]),
    "ab,cb->ac": ((4,), (5,), "c", ["dense"]),
    "ab...,bc->ac...": ((4, 3), (5,), "c", ["permute", "dense", "permute"]),
    "abc,cde->abde": ((3, 4), (3, 2, 5), "de", ["dense", "reshape"]),
    "abde,dec->abc": ((3, 2, 5), (3, 4), "c", ["reshape", "dense"]),
    "abc,bd->adc": ((3, 4), (5, 4), "d", ["permute", "dense", "permute"]),
    "abcd,dcbe->ae": ((2, 3, 4), (5,), "e", ["reshape", "dense"]),
    "abcd,cbe->aed": ((2, 3, 4), (5, 4), "e", ["permute", "reshape", "dense", "permute"]),
    "ab,cd->abcd": ((3,), (3, 2, 4), "cd", ["reshape", "dense", "reshape"]),
    "abc,c->ab": ((3, 4), (3,), None, ["dense", "reshape"]),
    "ab,b->a": ((3,), (), None, ["dense", "reshape"]),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_einsum_dense_is_a_dense_between_permutes_and_reshapes(equation):
    shape, output, bias, expected = EQUATIONS[equation]
    layer = layers.EinsumDense(equation, output, bias_axes=bias, bias_initializer=NORMAL, name="e")
    found = assert_rebuilt_is_equal(model_of(layer, *shape), *shape)
    assert [kind for _, kind in found] == expected
    assert ("e", "dense") in found


@st.composite
def contractions(draw):
    """An equation, the input's shape, the output's, and the bias' axes."""
    free, summed, new = (draw(st.integers(0, 2)) for _ in range(3))
    letters = iter("bcdefgh")
    parts = ["".join(next(letters) for _ in range(count)) for count in (free, summed, new)]
    given = "a" + "".join(draw(st.permutations(parts[0] + parts[1])))
    kernel = "".join(draw(st.permutations(parts[1] + parts[2])))
    output = "a" + "".join(draw(st.permutations(parts[0] + parts[2])))
    return given, kernel, output, parts[2]


@settings(max_examples=40, deadline=None)
@given(contractions().filter(lambda found: found[1]), st.sampled_from([None, "relu", "softmax"]), st.booleans())
def test_any_contraction_is_a_dense(found, activation, biased):
    given, kernel, output, new = found
    bias = new if biased and new else None
    layer = layers.EinsumDense(
        f"{given},{kernel}->{output}",
        tuple(SIZES[letter] for letter in output[1:]),
        bias_axes=bias,
        bias_initializer=NORMAL,
        activation=activation,
    )
    shape = [SIZES[letter] for letter in given[1:]]
    kinds = assert_rebuilt_is_equal(model_of(layer, *shape), *shape)
    assert [kind for _, kind in kinds].count("dense") == 1


@pytest.mark.parametrize(
    ("equation", "rank", "reason"),
    [
        ("abc,bcd->abd", 3, "for each index of 'b'"),
        ("abc,cd->ad", 3, "sums over letters of one term alone"),
        ("abc,ed->abc", 3, "sums over letters of one term alone"),
        ("abb,bd->ad", 3, "twice"),
        ("abc,ad->bcd", 3, "moves the batch"),
        ("abc,cd->bad", 3, "moves the batch"),
    ],
)
def test_an_equation_that_is_no_contraction_says_why(equation, rank, reason):
    assert reason in contraction_of(equation, rank)


def test_dots_stand_for_axes_of_their_own():
    assert contraction_of("...x,xy->...y", 4) == Contraction("012x", "xy", "012y")
    assert contraction_of("ab...,bc->ac...", 4) == Contraction("ab01", "bc", "ac01")


def test_a_bias_that_keras_may_add_to_another_axis_stays_whole():
    layer = layers.EinsumDense("abcd,de->abec", (3, 3, 2), bias_axes="e", bias_initializer=NORMAL)
    model = model_of(layer, 3, 2, 4)
    assert "along another axis" in view(model).ops[0].reason
    assert_rebuilt_is_equal(model, 3, 2, 4)


def test_one_unknown_size_is_reshaped_two_stay_whole():
    attend = {"equation": "abcd,cde->abe", "output_shape": (None, 6), "bias_axes": "e"}
    assert_rebuilt_is_equal(model_of(layers.EinsumDense(**attend), None, 2, 4), 3, 2, 4)
    image = {"equation": "abcde,def->abcf", "output_shape": (None, None, 6)}
    (op,) = view(model_of(layers.EinsumDense(**image), None, None, 2, 4)).ops
    assert op.kind == "einsum_dense"
    assert "at most one size" in op.reason


def test_the_activation_stands_at_the_product_unless_it_mixes_values():
    for activation, place in (("relu", 1), ("softmax", 2)):
        layer = layers.EinsumDense("abc,cde->abde", (3, 2, 5), activation=activation, name="e")
        found = assert_rebuilt_is_equal(model_of(layer, 3, 4), 3, 4)
        assert found[place] == (f"e/{activation}", activation)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_a_separable_convolution_is_a_depthwise_and_a_pointwise(dims, order):
    cls = {1: layers.SeparableConv1D, 2: layers.SeparableConv2D}[dims]
    layer = cls(5, 3, strides=2, depth_multiplier=2, data_format=order, activation="relu", bias_initializer=NORMAL)
    graph = view(model_of(layer, *(8, 9, 7)[: dims + 1]))
    assert [op.kind for op in graph.ops] == [f"depthwise_conv{dims}d", f"conv{dims}d", "relu"]
    channels = 1 if order == "channels_first" else -1
    depthwise = graph.ops[0]
    assert graph.shapes[depthwise.name][channels] == 2 * graph.shapes["x"][channels]
    if order == "channels_last":
        assert_rebuilt_is_equal(model_of(layer, *(8, 9, 7)[: dims + 1]), *(8, 9, 7)[: dims + 1])


def test_a_time_distributed_dense_is_the_dense_also_where_it_is_shared():
    x = keras.Input((3, 4), name="x")
    dense = layers.Dense(5, activation="relu", bias_initializer=NORMAL, name="shared")
    model = keras.Model(x, [layers.TimeDistributed(dense, name="each")(x), dense(x)])
    graph = view(model)
    assert [(op.name, op.kind) for op in graph.ops] == [
        ("each", "dense"), ("each/relu", "relu"), ("shared", "dense"), ("shared/relu", "relu"),
    ]  # fmt: skip
    rebuilt = build(graph)
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for expected, found in zip(model(values), rebuilt(values), strict=True):
        assert np.allclose(expected, found, atol=1e-6)
    assert len(rebuilt.weights) == 2


def test_a_kernel_that_is_not_the_first_weight_stays_float():
    x = keras.Input((4,), name="x")
    dense = layers.Dense(5, name="d")
    model = keras.Model(x, dense(x))
    dense.enable_lora(2)
    (op,) = view(model).ops
    assert "LoRA" in op.reason


def test_the_activity_regularizer_stays_with_what_it_looks_at():
    layer = layers.Conv2D(2, 1, activation="relu", activity_regularizer="l2", name="c")
    model = model_of(layer, 4, 4, 3)
    rebuilt = build(view(model))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    model(x)
    rebuilt(x)
    assert np.allclose(sum(model.losses), sum(rebuilt.losses), rtol=1e-5)
