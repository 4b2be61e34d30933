"""Masks of a plain ONNX: on the DLA, where every other tensor has a scale, they have none."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops

import tfqat
from tfqat.exporters import cache
from tfqat.exporters.onnx_masks import masks_of

MASKS = {
    "a where": lambda scores: ops.where(np.tri(5, dtype=bool), scores, -1e9),
    "infinity": lambda scores: ops.where(np.tri(5, dtype=bool), scores, -float("inf")),
    "added": lambda scores: scores + np.triu(np.full((5, 5), -1e4, "float32"), 1),
    "a Softmax's": lambda scores: scores,
}


def attention(change, mask=None):
    tokens = keras.Input((5, 8), name="tokens")
    query, key, value = (layers.Dense(8, name=name)(tokens) for name in ("query", "key", "value"))
    scores = change(ops.matmul(query, ops.swapaxes(key, -1, -2)) * 0.3)
    weights = layers.Softmax(name="weights")(scores, mask=mask)
    return keras.Model(tokens, layers.Dense(2, name="head")(ops.matmul(weights, value)))


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_has_no_scale_on_the_dla(name, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    model = attention(MASKS[name], np.tri(5, dtype=bool)[None] if name == "a Softmax's" else None)
    batch = np.random.default_rng(0).normal(size=(4, 5, 8)).astype("float32")
    qat = tfqat.prepare(model, "tensorrt_dla")
    tfqat.calibrate(qat, [batch])
    files = tfqat.export(qat, tmp_path, calibration=[batch])
    scales = cache.read(files["cache"]).scales
    written = onnx.load(files["onnx"])
    masks = masks_of(written)
    assert masks
    assert masks.isdisjoint(scales)
    assert max(float(scale) for scale in scales.values()) < 1
    assert {node.input[0] for node in written.graph.node if node.op_type == "Softmax"} <= masks
    assert f"none for {len(masks)} masks of large numbers" in capsys.readouterr().out
    report = tfqat.verify(qat, tmp_path, [batch])
    assert report.passed, report


def test_a_scale_of_a_hundred_makes_no_mask(tmp_path):
    qat = tfqat.prepare(attention(lambda scores: scores * 100.0))
    tfqat.calibrate(qat, [np.ones((2, 5, 8), "float32")])
    assert not masks_of(onnx.load(tfqat.export(qat, tmp_path)["onnx"]))
