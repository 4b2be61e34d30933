"""The CIFAR-style residual net."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfqat.models.resnet8 import resnet8


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 1), (32, 32, 3), (9, 7, 2)], ids=str)
def test_gives_probabilities_for_any_image_size(shape):
    model = resnet8(shape, 10)
    outputs = keras.ops.convert_to_numpy(model(np.random.default_rng(0).random((2, *shape), np.float32)))
    assert outputs.shape == (2, 10)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


def test_is_the_net_of_the_benchmark():
    # MLPerf Tiny's ResNet (three stages, 3 x 32 x 32 x 3) has 7 convolutions of 3 x 3 and 2 shortcuts of 1 x 1.
    layers = resnet8((32, 32, 3), 10).layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.kernel_size for layer in convolutions].count((3, 3)) == 7
    assert [layer.kernel_size for layer in convolutions].count((1, 1)) == 2
    assert sum(isinstance(layer, keras.layers.Add) for layer in layers) == 3
    kernels = [9 * 3 * 16, 2 * 9 * 16**2, 9 * 16 * 32 + 9 * 32**2 + 16 * 32, 9 * 32 * 64 + 9 * 64**2 + 32 * 64]
    assert sum(np.prod(layer.kernel.shape) for layer in convolutions) == sum(kernels)


def test_dropout_and_width():
    assert any(isinstance(layer, keras.layers.Dropout) for layer in resnet8((32, 32, 3), 10, dropout=0.2).layers)
    assert resnet8((32, 32, 3), 10, width=0.5).count_params() < resnet8((32, 32, 3), 10).count_params() / 3
