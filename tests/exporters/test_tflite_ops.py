"""Every kind of op that TFLite runs: one model with a branch a kind, each judged by LiteRT on its own input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import tfqat
from tfqat.core.encoding import encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.exporters.tflite_graph import affine
from tfqat.exporters.tflite_graph.build import build
from tfqat.exporters.tflite_graph.kinds import KINDS
from tfqat.graph.kinds import IDENTITY
from tfqat.rewrite.split import split
from tfqat.targets.tflite import TARGET
from tfqat.verification.keras_values import values_of
from tfqat.verification.tflite_blocks import judge_tflite_blocks
from tfqat.verification.tflite_runner import TfliteRunner
from tfqat.view.view import view

CHANNELS = np.arange(8, dtype=np.float32)
UNIFORM, NORMAL = keras.initializers.RandomUniform, "random_normal"

ACTIVATIONS = "relu relu6 leaky_relu elu gelu silu hard_silu hard_sigmoid sigmoid tanh softmax log_softmax"


def norm(low: float = -2, high: float = 2):
    return layers.BatchNormalization(gamma_initializer=UNIFORM(low, high), beta_initializer=NORMAL)


def steps(x):
    """An image as a sequence of 64 steps."""
    return layers.Reshape((64, 8))(x)


# Name -> what to do with an image x, another y, both (8, 8, 8), and a vector v of 8.
BRANCHES = {
    "convolution": lambda x, y, v: layers.Conv2D(6, 3, 2, "same", bias_initializer=NORMAL, activation="relu")(x),
    "convolution, valid": lambda x, y, v: layers.Conv2D(6, (3, 2), strides=2, use_bias=False)(x),
    "convolution, dilated": lambda x, y, v: layers.Conv2D(6, 3, dilation_rate=2, activation="relu6")(x),
    "convolution, groups": lambda x, y, v: layers.Conv2D(6, 3, groups=2, padding="same", activation="hard_tanh")(x),
    "depthwise": lambda x, y, v: layers.DepthwiseConv2D(
        3, strides=2, padding="same", depth_multiplier=2, bias_initializer=NORMAL, activation="relu6"
    )(x),
    "depthwise, dilated": lambda x, y, v: layers.DepthwiseConv2D(3, dilation_rate=2)(x),
    "transposed": lambda x, y, v: layers.Conv2DTranspose(5, 3, 2, "same", bias_initializer=NORMAL)(x),
    "transposed, valid": lambda x, y, v: layers.Conv2DTranspose(5, 3, strides=2, activation="relu")(x),
    "transposed, wide stride": lambda x, y, v: layers.Conv2DTranspose(5, 2, strides=3)(x),
    "convolution along one axis": lambda x, y, v: layers.Conv1D(
        6, 3, 2, "same", bias_initializer=NORMAL, activation="relu"
    )(steps(x)),
    "convolution along one axis, causal": lambda x, y, v: layers.Conv1D(6, 3, dilation_rate=2, padding="causal")(
        steps(x)
    ),
    "depthwise along one axis": lambda x, y, v: layers.DepthwiseConv1D(3, strides=2, depth_multiplier=2)(steps(x)),
    "transposed along one axis": lambda x, y, v: layers.Conv1DTranspose(5, 3, 2, "same", activation="relu")(steps(x)),
    "separable along one axis": lambda x, y, v: layers.SeparableConv1D(5, 3, padding="same")(steps(x)),
    "dense of a sequence": lambda x, y, v: layers.EinsumDense("abc,cde->abde", (64, 2, 3), bias_axes="de")(steps(x)),
    "matmul": lambda x, y, v: ops.matmul(steps(x), ops.transpose(steps(y), (0, 2, 1))),
    "dense": lambda x, y, v: layers.Dense(7, bias_initializer=NORMAL)(v),
    "dense of an image": lambda x, y, v: layers.Dense(7, activation="relu")(x),
    "add": lambda x, y, v: layers.Add()([x, y]),
    "add of three, relu": lambda x, y, v: layers.ReLU()(layers.Add()([x, y, y])),
    "add, broadcast": lambda x, y, v: layers.Add()([layers.Reshape((1, 1, 8))(v), x]),
    "subtract": lambda x, y, v: layers.Subtract()([x, y]),
    "multiply": lambda x, y, v: layers.Multiply()([x, y]),
    "multiply, broadcast": lambda x, y, v: layers.Multiply()([x, layers.Reshape((1, 1, 8))(v)]),
    "average of two": lambda x, y, v: layers.ReLU()(layers.Average()([x, y])),
    "maximum": lambda x, y, v: layers.Maximum()([x, y]),
    "minimum": lambda x, y, v: layers.Minimum()([x, y]),
    "concatenate": lambda x, y, v: layers.Concatenate()([x, y, layers.ReLU()(y)]),
    "concatenate one": lambda x, y, v: layers.Concatenate(axis=1)([x, x]),
    **{kind: lambda x, y, v, kind=kind: layers.Activation(kind)(x) for kind in ACTIVATIONS.split()},
    "leaky relu layer": lambda x, y, v: layers.LeakyReLU(0.3)(x),
    "prelu": lambda x, y, v: layers.PReLU(shared_axes=[1, 2], alpha_initializer=UNIFORM(0.1, 0.4))(x),
    "gelu, approximate": lambda x, y, v: ops.gelu(x, approximate=True),
    "batch norm": lambda x, y, v: norm()(layers.Add()([x, y])),
    "batch norm, relu": lambda x, y, v: layers.ReLU()(norm()(layers.Add()([x, y]))),
    "batch norm of a vector": lambda x, y, v: norm()(v),
    "plus": lambda x, y, v: x + 1.25,
    "minus": lambda x, y, v: 2.0 - x,
    "minus a channel": lambda x, y, v: x - CHANNELS,
    "times a channel": lambda x, y, v: x * (CHANNELS - 3),
    "divided": lambda x, y, v: x / 3.0,
    "normalization": lambda x, y, v: layers.Normalization(mean=CHANNELS, variance=CHANNELS + 1)(x),
    "normalization, inverted": lambda x, y, v: layers.Normalization(mean=1.0, variance=4.0, invert=True)(x),
    "rescaling": lambda x, y, v: layers.Rescaling(list(CHANNELS + 1), offset=list(CHANNELS))(x),
    "max pooling": lambda x, y, v: layers.MaxPooling2D(3, 2, padding="same")(x),
    "average pooling": lambda x, y, v: layers.AveragePooling2D(2)(x),
    "average pooling, same": lambda x, y, v: layers.AveragePooling2D(3, 1, padding="same")(x),
    "average pooling op": lambda x, y, v: ops.average_pool(x, 2, 2),
    "max pooling op": lambda x, y, v: ops.max_pool(x, 2, 2),
    "max pooling along one axis": lambda x, y, v: layers.MaxPooling1D(3, 2, padding="same")(steps(x)),
    "average pooling along one axis": lambda x, y, v: layers.AveragePooling1D(2)(steps(x)),
    "global average along one axis": lambda x, y, v: layers.GlobalAveragePooling1D()(steps(x)),
    "global max along one axis": lambda x, y, v: layers.GlobalMaxPooling1D(keepdims=True)(steps(x)),
    "global average": lambda x, y, v: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "global max": lambda x, y, v: layers.GlobalMaxPooling2D()(x),
    "mean": lambda x, y, v: ops.mean(x, axis=-1),
    "max": lambda x, y, v: ops.max(x, axis=-1, keepdims=True),
    "min": lambda x, y, v: ops.min(x, axis=[1, 2]),
    "flatten": lambda x, y, v: layers.Flatten()(x),
    "reshape": lambda x, y, v: layers.Reshape((4, 16, 8))(x),
    "reshape op": lambda x, y, v: ops.reshape(x, (-1, 64, 8)),
    "permute": lambda x, y, v: layers.Permute((3, 1, 2))(x),
    "transpose": lambda x, y, v: ops.transpose(x, (0, 2, 1, 3)),
    "swapaxes": lambda x, y, v: ops.swapaxes(x, 1, 3),
    "moveaxis": lambda x, y, v: ops.moveaxis(x, 1, 3),
    "copy": lambda x, y, v: ops.copy(ops.stop_gradient(layers.ReLU()(x))),
    "squeeze": lambda x, y, v: ops.squeeze(layers.Reshape((1, 1, 8))(v), axis=1),
    "expand_dims": lambda x, y, v: ops.expand_dims(v, axis=1),
    "zero padding": lambda x, y, v: layers.ZeroPadding2D(((1, 2), (0, 3)))(x),
    "pad": lambda x, y, v: ops.pad(x, ((0, 0), (1, 1), (0, 0), (2, 0))),
    "pad, mirrored": lambda x, y, v: ops.pad(x, ((0, 0), (1, 1), (2, 0), (0, 0)), mode="reflect"),
    "pad, filled": lambda x, y, v: ops.pad(x, ((0, 0), (1, 1), (2, 0), (0, 0)), constant_values=0.5),
    "zero padding along one axis": lambda x, y, v: layers.ZeroPadding1D((2, 1))(steps(x)),
    "cropping along one axis": lambda x, y, v: layers.Cropping1D((2, 1))(steps(x)),
    "up sampling along one axis": lambda x, y, v: layers.UpSampling1D(3)(steps(x)),
    "cropping": lambda x, y, v: layers.Cropping2D(((1, 2), (0, 3)))(x),
    "up sampling": lambda x, y, v: layers.UpSampling2D((2, 3))(x),
    "up sampling, bilinear": lambda x, y, v: layers.UpSampling2D((2, 3), interpolation="bilinear")(x),
    "item": lambda x, y, v: x[:, 1:7:3, ::-1, 2],
    "item, ellipsis": lambda x, y, v: x[..., 2:],
    "item, new axis": lambda x, y, v: x[:, None, :, 3],
    "split": lambda x, y, v: ops.split(x, [2, 3], axis=-1),
    "tile": lambda x, y, v: ops.tile(x, (1, 2, 1, 3)),
    "repeat": lambda x, y, v: layers.RepeatVector(3)(v),
    "dropout": lambda x, y, v: layers.Dropout(0.5)(layers.ReLU()(y)),
}
# They write no tensor that both sides have, or none at all.
UNJUDGED = IDENTITY | {"copy", "stop_gradient"}


class Judged:
    """The model of all branches, and what LiteRT makes of it."""

    def __init__(self) -> None:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3), name="image")
        pixels = layers.Rescaling(1 / 127.5, -1, name="rescale")(image)
        x = layers.Conv2D(8, 3, padding="same", name="trunk", bias_initializer=NORMAL)(pixels)
        y = layers.Conv2D(8, 1, name="other")(x)
        v = layers.GlobalAveragePooling2D(name="vector")(x)
        outputs = {name: branch(x, y, v) for name, branch in BRANCHES.items()}
        model = keras.Model(image, keras.tree.flatten(list(outputs.values())))
        self.images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("float32")
        prepared = tfqat.prepare(model, target="tflite", relu6=())
        data = tf.data.Dataset.from_tensor_slices(self.images).batch(32)
        tfqat.calibrate(prepared, data, method="minmax", batches=1)
        self.final = tfqat.finalize(prepared)
        plain, self.learnt = split(self.final)
        self.graph = view(plain)
        self.made = build(self.graph, self.learnt)
        values = values_of(self.final, {"image": self.images})
        self.scores = {s.tensor: s for s in judge_tflite_blocks(self.made.data, values, {"image": self.images})}


@pytest.fixture(scope="module")
def judged():
    return Judged()


def test_every_tensor_is_on_the_trained_models_integers(judged):
    assert {score for score in judged.scores.values() if not score.passed} == set()
    # What is not judged has no integers of its own: it is fused into the op after it.
    fused = {t for op in judged.graph.ops if op.kind not in UNJUDGED for t in op.outputs} - set(judged.scores)
    assert not fused & set(judged.learnt.activations)


def test_nearly_all_are_the_same_to_the_last_element(judged):
    differing = {score.tensor: score.differing for score in judged.scores.values() if score.differing}
    assert len(differing) < 0.1 * len(judged.scores), differing


def test_the_model_has_every_kind_that_can_be_written(judged):
    kinds = {op.kind for op in judged.graph.ops}
    assert set(KINDS) - kinds - UNJUDGED == {"ravel"}


def test_the_target_quantizes_what_can_be_written_and_nothing_else():
    quantized = TARGET.weighted | TARGET.own_range | TARGET.shared_range | TARGET.tied_range | TARGET.fixed_range.keys()
    fused = {kind for block in TARGET.blocks for step in block.steps for kind in step.kinds}
    assert quantized == set(KINDS) - IDENTITY
    assert fused <= quantized | {"hard_tanh"}


def test_a_batch_is_the_same_as_its_images_alone(judged):
    runner = TfliteRunner(judged.made.data)
    together = runner.run({"image": judged.images[:3]})
    alone = [runner.run({"image": judged.images[i : i + 1]}) for i in range(3)]
    for name, value in together.items():
        np.testing.assert_array_equal(value, np.concatenate([one[name] for one in alone]))


# Affine ops.

INT8 = Scheme(symmetric=False)
NUMBERS = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), NUMBERS, NUMBERS, st.floats(0.1, 4))
def test_an_affine_kernel_gives_the_right_integers(pairs, one, other, stretch):
    gain, shift = np.asarray(pairs, np.float64).T
    source = encoding_of_range(INT8, min(one, other) - 1e-2, max(one, other) + 1e-2)
    integers = np.arange(-128, 128)
    real = gain[:, None] * source.scale.astype(np.float64) * (integers - source.zero_point) + shift[:, None]
    target = encoding_of_range(INT8, stretch * min(real.min(), -1e-3), stretch * max(real.max(), 1e-3))
    kernel = affine.kernel_of(gain, shift, source, target)
    weights = kernel.integers.reshape(-1, 1).astype(np.float64)
    assert np.abs(weights).max() <= 127
    step = source.scale.astype(np.float64) * kernel.scale[:, None]
    bias = np.rint(kernel.bias[:, None] / step)
    assert np.abs(bias).max() < 2**31
    found = (weights * (integers - source.zero_point) + bias) * step / np.float64(target.scale)
    exact = real / np.float64(target.scale)
    grid = [np.clip(np.rint(values), -128 - target.zero_point, 127 - target.zero_point) for values in (found, exact)]
    # Now and then no kernel is right for all: then values within the bias' own rounding of a tie may go either way.
    to_tie = np.abs(np.abs(exact - np.rint(exact)) - 0.5)
    apart = np.abs(grid[0] - grid[1])
    assert (apart <= (to_tie < 0.5 * step / target.scale + 1e-6)).all()
    assert apart.max() <= 1
