"""TensorRT on GPU and DLA: what goes into a convolution's kernel, and what the DLA leaves to the GPU."""

import keras
import numpy as np
import pytest
from keras import layers

import tfqat


def model_with(make, shape=(8, 8, 4), name="conv") -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input(shape, name="image")
    x = make(image)
    return keras.Model(image, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))


AFFINE = {
    "a summand": lambda x: x + 0.7,
    "a factor": lambda x: x * 1.7,
    "both": lambda x: x * 1.7 + np.float32([1, 2, 3, 4]),
    "from a number": lambda x: 0.7 - x,
    "and an activation": lambda x: layers.LeakyReLU(0.2)(x / 3.0),
}


@pytest.mark.parametrize("what", AFFINE)
def test_a_number_behind_a_convolution_goes_into_it(what, tmp_path):
    """As TensorRT fuses it, so that a Quantizer between the two would round what the engine does not."""

    def make(x):
        return layers.Conv2D(3, 1, name="after")(AFFINE[what](layers.Conv2D(4, 3, padding="same", name="conv")(x)))

    qat = tfqat.prepare(model_with(make), relu6=())
    assert "conv" not in qat.placement.activations
    assert {row.state for row in qat.placement.rows if not row.output and row.op != "flat"} == {"int8"}
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("float32")
    tfqat.calibrate(qat, [images], method="minmax", batches=1)
    tfqat.export(qat, tmp_path)
    assert tfqat.verify(qat, tmp_path, images).passed


def test_the_dla_leaves_three_axes_to_the_gpu_and_says_so():
    def make(x):
        x = layers.Conv3D(4, 2, name="volume")(x)
        x = layers.MaxPooling3D(name="pool")(x)
        x = layers.Reshape((-1, 4), name="steps")(x)
        return layers.Conv1D(4, 2, name="line")(x)

    for target, state in (("tensorrt", "int8"), ("tensorrt_dla", "float")):
        rows = {row.op: row for row in tfqat.placement(model_with(make, (6, 6, 6, 2)), target).rows}
        assert rows["volume"].state == state
        assert rows["line"].state == "int8"
    assert "one axis or two" in rows["volume"].reason
    assert "one axis or two" in rows["pool"].reason
