"""FreezableBatchNormalization: the stock layer until it is frozen; then training leaves its statistics alone."""

import keras
import numpy as np

from tfqat.rewrite.batch_norm import FreezableBatchNormalization

X = np.random.default_rng(0).normal(3, 2, (16, 4, 4, 5)).astype("float32")


def pair():
    layers = FreezableBatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for layer in layers:
        layer.build(X.shape)
    return layers


def test_training_and_evaluation_are_those_of_the_stock_layer():
    ours, stock = pair()
    for training in (True, True, False):
        assert np.allclose(ours(X, training=training), stock(X, training=training), atol=1e-5)
    for a, b in zip(ours.weights, stock.weights, strict=False):
        assert np.allclose(a, b, atol=1e-6)


def test_frozen_training_uses_the_statistics_and_leaves_them_bit_for_bit():
    ours, _ = pair()
    ours(X, training=True)
    ours.freeze()
    before = [np.array(weight) for weight in ours.non_trainable_weights]
    trained = np.array(ours(X * 3, training=True))
    assert np.allclose(trained, ours(X * 3, training=False), atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, ours.non_trainable_weights, strict=True))


def test_a_layer_that_does_not_train_evaluates():
    ours, stock = pair()
    ours.trainable = stock.trainable = False
    assert np.allclose(ours(X, training=True), stock(X, training=True), atol=1e-5)
