"""Transformers: every file of theirs computes what the trained model does, and has its Q/DQ where kernels want them."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops

import tfqat
from tfqat.errors import TfqatError
from tfqat.exporters import cache, coverage, encodings, onnx_qdq
from tfqat.verification.report import Report
from tfqat.verification.simulation import simulate


def mlp(x, name="mlp"):
    y = layers.LayerNormalization(name=f"{name}_norm")(x)
    y = layers.Dense(24, activation="relu", name=f"{name}_up")(y)
    return layers.Add(name=f"{name}_add")([x, layers.Dense(12, name=f"{name}_down")(y)])


def vit():
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Reshape((4, 12), name="tokens")(layers.Conv2D(12, 4, 4, name="patches")(image))
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(3, 4, name="mha")(x, x)])
    x = layers.GlobalAveragePooling1D(name="pool")(mlp(x))
    return keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x))


def decoder():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 12, name="table")(tokens)
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(3, 4, name="mha")(x, x, use_causal_mask=True)])
    return keras.Model(tokens, layers.Dense(20, name="head")(mlp(x)))


def bert():
    """Padding as an input; dropout, so that Keras spells the attention out; a headless end."""
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    padding = keras.Input((7,), dtype="int32", name="padding")
    x = layers.LayerNormalization(name="norm")(layers.Embedding(20, 12, name="table")(tokens))
    mask = ops.cast(ops.expand_dims(padding, 1), "bool")
    y = layers.MultiHeadAttention(3, 4, dropout=0.1, name="mha")(x, x, attention_mask=mask)
    x = mlp(layers.Add(name="add")([x, y]))
    return keras.Model([tokens, padding], layers.LayerNormalization(name="out")(x))


def padded():
    """The mask that Keras makes of padding by itself."""
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 12, mask_zero=True, name="table")(tokens)
    y = layers.MultiHeadAttention(3, 4, name="mha")(x, x)
    return keras.Model(tokens, layers.Dense(2, name="head")(layers.Dense(12, name="mid")(y)))


def crossed():
    query, memory = keras.Input((5, 12), name="query"), keras.Input((8, 10), name="memory")
    x = layers.Dense(12, name="stem")(query)
    y = layers.MultiHeadAttention(3, 4, value_dim=5, name="mha")(x, memory)
    return keras.Model([query, memory], layers.Dense(3, name="head")(layers.Add(name="add")([x, y])))


def crossed_alike():
    """Without masks and normalization, of which TFLite has no int8 form."""
    query, memory = keras.Input((5, 12), name="query"), keras.Input((8, 10), name="memory")
    x = layers.Dense(12, name="stem")(query)
    y = layers.MultiHeadAttention(3, 4, name="mha")(x, memory)
    return keras.Model([query, memory], layers.Dense(3, name="head")(layers.Add(name="add")([x, y])))


def grouped():
    tokens = keras.Input((6, 12), name="tokens")
    x = layers.Dense(12, name="stem")(tokens)
    y = layers.GroupQueryAttention(4, 4, 2, name="gqa")(x, x, use_causal_mask=True)
    return keras.Model(tokens, layers.Dense(3, name="head")(layers.Add(name="add")([x, y])))


def plain():
    """Keras' attention without projections, and its own way to mask."""
    tokens = keras.Input((6, 12), name="tokens")
    query, value = layers.Dense(8, name="query")(tokens), layers.Dense(8, name="value")(tokens)
    y = layers.Attention(name="attention")([query, value], use_causal_mask=True)
    return keras.Model(tokens, layers.Dense(3, name="head")(y))


def siamese():
    """Two towers of one layer; the product of what they give is the output."""
    one, other = keras.Input((6,), name="one"), keras.Input((6,), name="other")
    tower = layers.Dense(8, name="tower")
    return keras.Model([one, other], layers.Dot(axes=1, name="likeness")([tower(one), tower(other)]))


MODELS = (vit, decoder, bert, padded, crossed, grouped, plain, siamese)


def inputs_of(model, size=8):
    rng = np.random.default_rng(0)
    found = []
    for tensor in model.inputs:
        shape = (size, *(axis or 6 for axis in tensor.shape[1:]))
        numbers = rng.integers(0, 2 if tensor.name == "padding" else 20, shape)
        values = rng.normal(size=shape).astype("float32") if "float" in tensor.dtype else numbers.astype("int64")
        found.append(values)
    return found if len(found) > 1 else found[0]


@dataclass
class Exported:
    """One model, its files, and what `verify` says of them."""

    name: str
    qat: keras.Model
    folder: Path
    report: Report

    def onnx(self, file="model.onnx"):
        return onnx.load(self.folder / file)


def exported(function, target, folder):
    keras.utils.set_random_seed(0)
    model = function()
    inputs = inputs_of(model)
    qat = tfqat.prepare(model, target)
    tfqat.calibrate(qat, [inputs])
    tfqat.export(qat, folder, calibration=[inputs] if target == "tensorrt_dla" else None)
    return Exported(function.__name__, qat, folder, tfqat.verify(qat, folder, [inputs]))


@pytest.fixture(scope="module", params=MODELS, ids=lambda function: function.__name__)
def made(request, tmp_path_factory):
    return exported(request.param, "tensorrt", tmp_path_factory.mktemp(request.param.__name__))


def test_tensorrt_files_pass_both_judges(made):
    assert made.report.passed, made.report
    assert len(made.report.rows) == 2
    assert all(row.judged and row.blocks for row in made.report.rows), made.report
    assert made.qat.placement.int8_mac_share == 1.0


def test_no_scale_is_missing(made):
    told = encodings.read(made.folder / "encodings.json")
    covered = coverage.cover(made.onnx(), cache.read(made.folder / "model.cache").scales, told.float_ops)
    assert covered.missing == ()
    products = onnx_qdq.products_of(made.onnx())
    assert set(products) <= {*covered.int8, *told.float_ops}


@pytest.mark.parametrize("function", [decoder, padded, grouped, plain], ids=lambda function: function.__name__)
def test_a_dla_runs_masked_attention_and_no_mask_has_a_scale(function, tmp_path):
    made = exported(function, "tensorrt_dla", tmp_path)
    assert made.report.passed, made.report
    assert all(row.judged and row.blocks for row in made.report.rows), made.report
    assert made.qat.placement.int8_mac_share == 1.0
    held = cache.read(tmp_path / "model.cache")
    assert max(float(scale) for scale in held.scales.values()) < 10
    masked = next(node.input[0] for node in made.onnx().graph.node if node.op_type == "Softmax")
    assert masked not in held.scales


def test_every_product_reads_q_dq(made):
    """Nothing stands between the pair and the product, no Transpose either."""
    nodes = made.onnx("model.qdq.onnx").graph.node
    producers = {name: node.op_type for node in nodes for name in node.output}
    two = [node for node in nodes if node.name in onnx_qdq.products_of(made.onnx())]
    assert len(two) == (1 if made.name == "siamese" else 2)
    assert all(producers[tensor] == "DequantizeLinear" for node in two for tensor in node.input)


def test_scores_have_a_line_and_are_not_rounded(made):
    if made.name == "siamese":
        pytest.skip("no attention")
    told, held = encodings.read(made.folder / "encodings.json"), cache.read(made.folder / "model.cache")
    scores = next(node.output[0] for node in made.onnx().graph.node if node.name in onnx_qdq.products_of(made.onnx()))
    assert told.activations[scores].origin == "calibrated"
    assert scores in held.scales
    assert scores not in onnx_qdq.scales_of(simulate(made.onnx(), held, told.float_ops).model)
    assert max(float(scale) for scale in held.scales.values()) < 10  # no mask is among them


def test_random_inputs_fit_tables_and_masks(made):
    if made.name in ("decoder", "bert", "padded"):
        assert tfqat.verify(made.qat, made.folder).passed


@pytest.mark.parametrize("function", [crossed_alike, siamese], ids=lambda function: function.__name__)
def test_tflite_files_pass_their_judge(function, tmp_path):
    made = exported(function, "tflite", tmp_path)
    assert made.report.passed, made.report
    assert [row.state for row in made.qat.placement.rows if row.kind == "matmul" or row.kind == "softmax"].count(
        "int8"
    ) == (1 if function is siamese else 3)


def test_tflite_refuses_a_mask_by_name(tmp_path):
    with pytest.raises(TfqatError, match="causal_mask"):
        exported(grouped, "tflite", tmp_path)


@pytest.mark.parametrize("function", [vit, bert], ids=lambda function: function.__name__)
def test_asymmetric_files_pass_both_judges(function, tmp_path):
    made = exported(function, "sima", tmp_path)
    assert made.report.passed, made.report
    assert all(row.blocks for row in made.report.rows)
    assert made.qat.placement.int8_mac_share == 1.0
