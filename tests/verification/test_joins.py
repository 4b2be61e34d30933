"""What TensorRT fuses where branches meet is what was trained: no scale of the cache moves an integer."""

import keras
import numpy as np
import pytest
from keras import layers

import tfqat

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype("float32")


def conv(name):
    return layers.Conv2D(6, 3, padding="same", name=name)


JOINS = {
    "average": lambda y: layers.Average(name="join")([conv("branch")(y), y]),
    "average of two convolutions": lambda y: layers.Average(name="join")([conv("branch")(y), conv("other")(y)]),
    "average of three": lambda y: layers.Average(name="join")([conv("branch")(y), y, conv("other")(y)]),
    "average and activation": lambda y: layers.ReLU(name="act")(layers.Average()([conv("branch")(y), y])),
    "half a sum": lambda y: layers.ReLU(name="act")((conv("branch")(y) + y) / 2),
    "a scaled residual": lambda y: layers.ReLU(name="act")(y + conv("branch")(y) * 0.2),
    "a scaled residual of half size": lambda y: layers.ReLU(name="act")(y * 0.5 + conv("branch")(y)),
    "a residual shifted and scaled": lambda y: (conv("branch")(y) + 0.1) * 0.2 + y,
    "two scaled residuals": lambda y: conv("branch")(y) * 0.2 + conv("other")(y) * -0.5,
    "a residual scaled three times": lambda y: y + conv("branch")(y) * 0.2 * 2.0 * -1.5,
    "a shift and an activation": lambda y: layers.ReLU(6, name="act")(layers.MaxPooling2D(2, name="pool")(y) + 0.3),
    "four scales in a row": lambda y: conv("branch")(y) * 0.5 + 0.25 - 0.125 + np.linspace(-1, 1, 6).astype("float32"),
}


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla"])
@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
def test_cache_and_training_round_the_same_tensors(join, target, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4), name="image")
    y = conv("last")(join(conv("first")(image)))
    model = keras.Model(image, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D(name="mean")(y)))
    qat = tfqat.prepare(model, target, relu6=())
    tfqat.calibrate(qat, [IMAGES])
    tfqat.export(qat, tmp_path, calibration=[IMAGES] if target == "tensorrt_dla" else None)
    report = tfqat.verify(qat, tmp_path, IMAGES)
    assert report.passed, report
    assert all(row.blocks for row in report.rows), report  # each was judged
