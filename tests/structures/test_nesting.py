"""Awkward ways to nest, share and cut models: what is rebuilt from their view computes the same."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

import tfqat
from tfqat.graph.build import build
from tfqat.view.view import view

DRAW = np.random.default_rng(0).normal
VECTOR, IMAGE = DRAW(size=(2, 4)).astype("float32"), DRAW(size=(2, 8, 8, 3)).astype("float32")
TOKENS = np.array([[1, 2, 3, 0, 0, 0], [3, 1, 0, 0, 0, 0]])


def other_order():
    """Called with a dict, a list, and with the inputs in another order than it was made with."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model([b, a], {"minus": a - b, "d": layers.Dense(3, name="d")(b)}, name="inner")
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    by_name, by_place = inner({"a": p, "b": q}), inner([p, q])
    return keras.Model({"p": p, "q": q}, [by_name["minus"], by_name["d"], by_place["minus"], p, p])


def backbone_called_four_times():
    backbone = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="c"), layers.Flatten()], name="bb")
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    pair = keras.Model(a, layers.Concatenate(name="cat")([backbone(a), backbone(a * 2)]), name="pair")
    return keras.Model(b, layers.Dense(2, name="head")(pair(b) + pair(b + 1)))


def shared_inside_and_outside():
    dense, a, b = layers.Dense(4, name="d"), keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(a, dense(a), name="inner")
    return keras.Model(b, dense(inner(dense(b))))


def part_of_a_nested_model():
    pair = backbone_called_four_times().get_layer("pair")
    return keras.Model(pair.inputs, [pair.get_layer("cat").output, pair.get_layer("bb").output])


def cut_out_of_another():
    a = keras.Input((3,))
    h = layers.Dense(4, name="h")(a)
    return keras.Model(h, layers.Dense(2, name="o")(ops.relu(h)))


def inputs_as_outputs():
    a = keras.Input((4,))
    return keras.Model(a, [a, layers.Dense(2, name="d")(a), a])


def strange_names():
    a, b = keras.Input((4,), name="in put"), keras.Input((4,))
    inner = keras.Model(b, layers.Dense(4, name="a:b")(b), name="a_b")
    x = layers.Dense(4, name="größe, x>y")(layers.Dense(4, name="a:b")(a))
    return keras.Model(a, inner(x))


class NamedWeights(keras.Model):
    """Its variables have names that no file and no graph takes."""

    def __init__(self):
        super().__init__(name="named")
        shapes = {"größe, 1": (4, 4), "_x:y": (4, 2), "g>h": (4,)}
        self.held = [self.add_weight(shape=shape, name=name) for name, shape in shapes.items()]

    def call(self, x):
        first, last, gain = self.held
        return (ops.relu(x @ first) * gain + ops.sum(last)) @ last


def strange_names_of_weights():
    model = NamedWeights()
    model(VECTOR)
    return model


def names_that_begin_strangely():
    b = keras.Input((4,), name="-b")
    inner = keras.Model(b, layers.Dense(4, name="-x>")(layers.Dense(4, name="_pri vate")(b)), name="_inner")
    a = keras.Input((4,), name="_a")
    return keras.Model(a, layers.Dense(2, name="_o>_o")(inner(a)))


def unknown_sizes():
    a = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same", name="c")(a)
    x = layers.Conv2DTranspose(4, 2, strides=2, name="u")(layers.MaxPooling2D(name="m")(x))
    return keras.Model(a, layers.Conv2D(2, 1, name="o")(layers.Concatenate(name="cat")([x, a])))


def unbuilt_sequential_inside():
    a = keras.Input((4,))
    return keras.Model(a, keras.Sequential([layers.Dense(4), keras.Sequential([layers.Dense(2)])])(a))


def constants():
    a = keras.Input((4,))
    x = ops.where(ops.convert_to_tensor([True, False, True, False]), a, ops.ones((4,)))
    return keras.Model(a, layers.Dense(2, name="d")(x * keras.Variable(np.arange(4.0)) + np.arange(4)))


def video():
    a = keras.Input((3, 8, 8, 3))
    frame = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten()])
    return keras.Model(a, layers.Dense(2, name="d")(layers.TimeDistributed(frame, name="frames")(a)))


def encoder():
    """A nested model whose output carries a mask, which Keras passes on at run time only."""
    embed = layers.Embedding(5, 8, mask_zero=True, name="embed")
    return keras.Sequential([keras.Input((6,), dtype="int32"), embed, layers.Dense(8, name="dense")], name="encoder")


def masked(then):
    def make():
        a = keras.Input((6,), dtype="int32")
        return keras.Model(a, then(encoder()(a)))

    make.__name__ = f"mask_to_{then.__name__}"
    return make


def recurrent(x):
    return layers.LSTM(3, name="r")(x)


def nested_recurrent(x):
    b = keras.Input((6, 8))
    inner = keras.Model(b, layers.GRU(4, return_sequences=True, name="r")(layers.Dense(8, name="z")(b)), name="rnn")
    return layers.GlobalAveragePooling1D(name="pool")(inner(x))


def attention(x):
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 4, name="first")(x, x)])
    x = layers.MultiHeadAttention(2, 4, name="second")(layers.LayerNormalization(name="norm")(x), x)
    return layers.Bidirectional(layers.LSTM(3), name="both")(x)


def grouped_attention(x):
    return layers.GroupQueryAttention(4, 2, 2, name="attention")(x, x, use_causal_mask=True)


MODELS = {
    make.__name__: (make, x)
    for make, x in (
        (other_order, {"p": VECTOR, "q": VECTOR[::-1]}),
        (backbone_called_four_times, IMAGE),
        (shared_inside_and_outside, VECTOR),
        (part_of_a_nested_model, IMAGE),
        (cut_out_of_another, VECTOR),
        (inputs_as_outputs, VECTOR),
        (strange_names, VECTOR),
        (strange_names_of_weights, VECTOR),
        (names_that_begin_strangely, VECTOR),
        (unknown_sizes, IMAGE),
        (unbuilt_sequential_inside, VECTOR),
        (constants, VECTOR),
        (video, DRAW(size=(2, 3, 8, 8, 3)).astype("float32")),
        (masked(recurrent), TOKENS),
        (masked(nested_recurrent), TOKENS),
        (masked(attention), TOKENS),
        (masked(grouped_attention), TOKENS),
    )
}


@pytest.mark.parametrize("name", MODELS)
def test_a_rebuilt_model_computes_the_same_and_so_does_its_file(fresh_names, tmp_path, name):
    make, x = MODELS[name]
    model = make()
    graph = view(model)
    rebuilt = build(graph)
    rebuilt.save(tmp_path / "m.keras")
    expected = model(x)
    for each in (rebuilt, keras.models.load_model(tmp_path / "m.keras")):
        tree.assert_same_structure(expected, each(x))
        for a, b in zip(tree.flatten(expected), tree.flatten(each(x)), strict=True):
            assert np.allclose(a, b, rtol=1e-5, atol=1e-5)
    tensors = [*graph.inputs, *(tensor for op in graph.ops for tensor in op.outputs)]
    assert len(set(tensors)) == len(tensors)
    assert all(tensor.isascii() and not set(":, >") & set(tensor) for tensor in tensors)
    # As TensorFlow checks the names of nodes, of which Keras makes some of its layers' with '>' for '/'.
    assert all(re.match(r"[A-Za-z0-9.]", part) for tensor in tensors for part in tensor.split("/")[1:])
    assert sorted(op.name for op in view(rebuilt).ops) == sorted(op.name for op in graph.ops)
    assert len(rebuilt.trainable_variables) == len(model.trainable_variables)


def test_names_that_begin_strangely_go_the_whole_way(tmp_path):
    qat = tfqat.prepare(names_that_begin_strangely())
    tfqat.calibrate(qat, [VECTOR])
    qat.compile("adam", "mse")
    qat.train_on_batch(VECTOR, np.zeros((2, 2)))
    tfqat.export(qat, tmp_path)
    assert tfqat.verify(qat, tmp_path, [VECTOR]).passed
