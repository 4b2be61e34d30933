"""A model of each structure goes the whole way: prepare, train, save, load, finalize, export, verify."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops, tree

import tfqat
from tfqat.graph.build import build
from tfqat.graph.graph import bypass, replace_ops
from tfqat.rewrite.absorbed import release
from tfqat.rewrite.quantizer import RangeEstimator
from tfqat.rewrite.split import _stock
from tfqat.view.view import view

GOLDEN = Path(__file__).parent.parent / "graph/golden/structures"
NAMES = "subclassed nested unet siamese two_inputs_three_outputs custom_layers".split()


@pytest.fixture(scope="module")
def structures():
    spec = importlib.util.spec_from_file_location("structures", Path(__file__).with_name("structures.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def moved(model, seed=1):
    """The model with all its weights drawn anew: a copy that was not made would show."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        value = np.asarray(variable)
        if value.dtype.kind == "f":
            variable.assign(value + generator.uniform(0.01, 0.1, value.shape))
    return model


def close(expected, received, tolerance=1e-5):
    tree.assert_same_structure(expected, received)
    for a, b in zip(tree.flatten(expected), tree.flatten(received), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.allclose(a, b, rtol=tolerance, atol=tolerance * max(np.abs(a).max(), 1e-3))


def train(model, x, steps=2):
    """Steps of plain gradient descent on the mean square of the outputs."""
    import tensorflow as tf

    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = sum(ops.mean(ops.square(y)) for y in tree.flatten(model(x, training=True)))
        variables = [variable.value for variable in model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            if gradient is not None:
                variable.assign_sub(0.01 * gradient)
    return [gradient is not None for gradient in gradients]


@pytest.mark.parametrize("name", NAMES)
def test_golden_placement(structures, fresh_names, name):
    plan = tfqat.placement(structures.MODELS[name]())
    assert f"{plan}\n" == (GOLDEN / f"{name}.txt").read_text(), "run scripts/golden.py and read the difference"


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_way(structures, fresh_names, tmp_path, name):
    model = moved(structures.MODELS[name]())
    x = structures.data(model)
    close(model(x, training=False), build(view(model))(x, training=False))

    qat = tfqat.prepare(model, relu6=())
    close(model(x, training=False), without_rounding(qat)(x, training=False))
    tfqat.calibrate(qat, [x])
    assert all(train(qat, x)), "a variable that the loss does not reach"
    assert len(qat.trainable_variables) == len(model.trainable_variables)

    qat.save(tmp_path / "qat.keras")
    loaded = tfqat.load_model(tmp_path / "qat.keras")
    close(qat(x, training=False), loaded(x, training=False))
    close(qat(x, training=False), keras.models.load_model(tmp_path / "qat.keras")(x, training=False))

    tfqat.export(loaded, tmp_path / "export", formats=["qdq_onnx", "tensorrt"])
    report = tfqat.verify(loaded, tmp_path / "export", [x])
    assert report.passed, report


def without_rounding(qat):
    """The model with the kernels as they are, and without Quantizers."""
    graph = replace_ops(release(view(qat)), _stock)
    return build(bypass(graph, [op.name for op in graph.ops if isinstance(op.source.built, RangeEstimator)]))
