"""Which tensors depend on no input, and what a placement makes of the ops that read them."""

import keras
import pytest
from keras import layers, ops

import tfqat
from tfqat.errors import TfqatError
from tfqat.graph.causes import CONSTANT, PRODUCT_WITH_CONSTANT
from tfqat.graph.constants import constants_in, with_constants
from tfqat.view.view import view


@tfqat.quantizable
class Beside(layers.Layer):
    """``f(x, table at 0 to 3, a weight)``."""

    def __init__(self, f, **kwargs):
        super().__init__(**kwargs)
        self.f = f
        self.table, self.dense = layers.Embedding(4, 6, name="table"), layers.Dense(6, name="inner")

    def build(self, shape):
        self.held = self.add_weight(shape=(4, 6), name="held")

    def call(self, x):
        return self.f(self, x, self.table(ops.arange(4)))


@tfqat.quantizable
class Token(layers.Layer):
    """A token of its own in front of each image's."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, 6), name="token")

    def call(self, x):
        return ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, 6)), x], axis=1)


def model(f):
    x = keras.Input((4, 6), name="x")
    y = Beside(f, name="beside")(layers.Dense(6, activation="relu", name="stem")(x))
    return keras.Model(x, layers.Dense(2, name="head")(layers.Dense(6, name="last")(y)))


READERS = {
    "x + c": (lambda own, x, c: x + c, "add", "add_constant"),
    "c + x": (lambda own, x, c: c + x, "add", "add_constant"),
    "x - c": (lambda own, x, c: x - c, "subtract", "subtract_constant"),
    "x * c": (lambda own, x, c: x * c, "multiply", "multiply_constant"),
    "c of a weight": (lambda own, x, c: (x + own.held) * ops.sigmoid(own.held + c), "multiply", "multiply_constant"),
    "c of a Dense": (lambda own, x, c: x + own.dense(c), "add", "add_constant"),
    "maximum": (lambda own, x, c: ops.maximum(x, c), "maximum", "maximum_constant"),
}


@pytest.mark.parametrize(("f", "kind", "told"), READERS.values(), ids=READERS)
def test_an_op_with_a_constant_has_the_kind_of_one_with_a_number(f, kind, told):
    graph = view(model(f))
    name = f"beside/{kind}"
    assert graph.op(name).kind == kind
    assert with_constants(graph).op(name).kind == told


def test_constants_are_what_no_input_reaches():
    graph = view(model(lambda own, x, c: x + own.dense(c)))
    found = constants_in(graph)
    assert found == {"beside/constant", "beside/table", "beside/inner"}


def test_a_batch_of_weights_is_no_constant():
    """A class token is repeated for each image, which files compute."""
    x = keras.Input((4, 6), name="x")
    graph = view(keras.Model(x, layers.Dense(2, name="head")(Token(name="token")(x))))
    assert constants_in(graph) == {"token/token"}


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla", "sima"])
def test_float_constants_have_no_quantizer_and_say_why(target):
    plan = tfqat.placement(model(lambda own, x, c: x + own.dense(c)), target)
    rows = {row.op: row for row in plan.rows}
    for name in ("beside/table", "beside/inner"):
        assert (rows[name].state, rows[name].reason, rows[name].macs) == ("float", CONSTANT, 0)
        assert name not in plan.activations
        assert name not in plan.weights
    assert (rows["beside/add"].kind, rows["beside/add"].state) == ("add_constant", "int8")


def test_tflite_stores_constants_as_integers():
    plan = tfqat.placement(model(lambda own, x, c: x + c), "tflite")
    row = next(row for row in plan.rows if row.op == "beside/table")
    assert (row.state, row.reason) == ("float", CONSTANT)
    assert "beside/table" in plan.activations
    assert next(row.kind for row in plan.rows if row.op == "beside/add") == "add"


def test_tflite_rounds_a_constant_once_at_its_end():
    """What it is computed from stays float: no file holds it, and each rounding on the way would cost."""
    plan = tfqat.placement(model(lambda own, x, c: x * ops.sigmoid((own.held + c) / ops.sum(c))), "tflite")
    inside = [row for row in plan.rows if row.op.startswith("beside/") and row.op != "beside/multiply"]
    assert {(row.state, row.reason) for row in inside} == {("float", CONSTANT)}
    assert [row.op for row in inside if row.op in plan.activations] == ["beside/sigmoid"]


@pytest.mark.parametrize("target", ["tensorrt", "sima"])
def test_a_product_with_a_constant_stays_float_and_says_why(target):
    plan = tfqat.placement(model(lambda own, x, c: ops.matmul(x, ops.transpose(c))), target)
    row = next(row for row in plan.rows if row.kind == "matmul")
    assert (row.state, row.reason) == ("float", PRODUCT_WITH_CONSTANT)


def test_a_concatenation_with_a_constant_is_rounded_to_the_range_of_the_other():
    x = keras.Input(batch_shape=(2, 4, 6), name="x")
    join = Beside(
        lambda own, x, c: ops.concatenate([x, ops.broadcast_to(ops.expand_dims(c, 0), (2, 4, 6))], 1), name="beside"
    )
    y = join(layers.Dense(6, activation="relu", name="stem")(x))
    plan = tfqat.placement(keras.Model(x, layers.Dense(2)(layers.Dense(6)(y))), "tensorrt")
    assert plan.groups["beside/concatenate"] == plan.groups["stem/relu"]
    assert "beside/concatenate" in plan.activations


def test_rows_of_a_constant_that_data_choose_are_quantized_by_their_reader():
    def chosen(own, x, c):
        where = ops.cast(x[:, :, 0] > 0, "int32")
        return ops.take(own.held, where, axis=0) + ops.take(own.held, 1 - where, axis=0) + c

    plan = tfqat.placement(model(chosen), "tensorrt")
    taken = [row for row in plan.rows if row.kind == "take"]
    assert [row.state for row in taken] == ["float", "float"]
    assert all(row.op in plan.activations for row in taken)


def test_a_rule_that_asks_for_a_constant_is_refused():
    with pytest.raises(TfqatError, match="depends on no input"):
        tfqat.placement(model(lambda own, x, c: x + own.dense(c)), rules=[{"match": "beside/inner", "quantize": True}])
