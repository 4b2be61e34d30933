"""Masks: which tensors carry large numbers, and that none of them is ever quantized."""

import keras
import pytest
from keras import layers, ops

import tfqat
from tfqat.graph.masks import masks_in
from tfqat.view.view import view


def scores_and(mask_type, change):
    """Two projections, their product, what ``change`` makes of the scores and a mask, softmax, and a product."""
    tokens = keras.Input((4, 8), name="tokens")
    mask = keras.Input((4,), dtype=mask_type, name="mask")
    key = ops.transpose(layers.Dense(8, name="key")(tokens), (0, 2, 1))
    scores = ops.matmul(layers.Dense(8, name="query")(tokens), key)
    weights = layers.Softmax(name="weights")(change(scores, mask))
    x = ops.matmul(weights, layers.Dense(8, name="value")(tokens))
    return keras.Model([tokens, mask], layers.Dense(2, name="head")(x))


def penalty(mask):
    return (1.0 - ops.cast(ops.expand_dims(mask, 1), "float32")) * -1e9


SPELLINGS = {
    "chosen": ("bool", lambda scores, mask: ops.where(ops.expand_dims(mask, 1), scores, -1e9)),
    "added, from integers": ("int32", lambda scores, mask: scores + penalty(mask)),
    "added, from floats": ("float32", lambda scores, mask: scores + penalty(mask)),
    "subtracted": ("float32", lambda scores, mask: scores - ops.expand_dims(mask, 1) * 10000.0),
    "scaled, then added": ("float32", lambda scores, mask: scores / 8.0 + penalty(mask)),
    "as Keras' Attention": (
        "bool",
        lambda scores, mask: ops.where(ops.logical_not(ops.expand_dims(mask, 1)), scores - 1e9, scores),
    ),
    "in a Softmax": ("bool", None),
}


def model_of(spelling):
    kind, change = SPELLINGS[spelling]
    if change is not None:
        return scores_and(kind, change)
    tokens, mask = keras.Input((4, 8), name="tokens"), keras.Input((1, 4), dtype="bool", name="mask")
    key = ops.transpose(layers.Dense(8, name="key")(tokens), (0, 2, 1))
    weights = layers.Softmax(name="weights")(ops.matmul(layers.Dense(8, name="query")(tokens), key), mask=mask)
    x = ops.matmul(weights, layers.Dense(8, name="value")(tokens))
    return keras.Model([tokens, mask], layers.Dense(2, name="head")(x))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("target", ["tensorrt", "sima", "tflite"])
def test_no_mask_is_quantized(spelling, target):
    model = model_of(spelling)
    plan = tfqat.placement(model, target)
    graph, masks = view(model), masks_in(view(model))
    assert masks or spelling == "in a Softmax"
    assert masks.isdisjoint(plan.activations)
    assert masks.isdisjoint(plan.observed)
    assert "mask" not in plan.activations
    rows = {row.op: row for row in plan.rows}
    assert [row.state for row in plan.rows if row.kind == "matmul"] == ["int8", "int8"]
    assert "weights" in plan.activations  # for the second product
    for op in graph.ops:
        if not masks.isdisjoint(op.outputs) and target != "tensorrt":
            assert rows[op.name].state == "float"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_tensorrt_runs_scores_and_softmax_as_one(spelling):
    plan = tfqat.placement(model_of(spelling))
    head = next(row for row in plan.rows if row.kind == "matmul")
    assert head.reason.startswith("fused with")
    assert "softmax" in head.reason
    assert head.op not in plan.activations
    assert head.op in plan.observed


def test_what_is_scaled_by_a_hundred_is_no_mask():
    # The temperature of CLIP and the like: those scores are quantized.
    tokens = keras.Input((4, 8))
    model = keras.Model(tokens, layers.Dense(2)(layers.Dense(8)(tokens) * 100.0))
    assert not masks_in(view(model))


def test_a_score_that_a_mask_is_added_to_is_none():
    masks = masks_in(view(model_of("added, from floats")))
    graph = view(model_of("added, from floats"))
    product = next(op.name for op in graph.ops if op.kind == "matmul")
    assert product not in masks
    assert "mask" in masks
