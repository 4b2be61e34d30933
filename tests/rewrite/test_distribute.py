"""Two replicas under tf.distribute see different data and have the same ranges after each step."""

import subprocess
import sys

import numpy as np
import pytest

CODE = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, tfqat
from tfqat.rewrite.model import kernel_layers, range_layers

options = eval(sys.argv[1])
keras.utils.set_random_seed(0)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs)))
    x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    qat = tfqat.prepare(keras.Model(inputs, keras.layers.Dense(2)(x)), **options)
    tfqat.calibrate(qat, [np.random.default_rng(1).random((4, 8, 8, 3)).astype("float32")])
    qat.compile(keras.optimizers.Adam(0.01), "mse")

def same(variable):
    first, second = (value.numpy() for value in variable.value.values)
    assert np.array_equal(first, second), (variable.path, first, second)
    return first

x = np.random.default_rng(0).random((8, 8, 8, 3)).astype("float32")
x[4:] *= 1.8  # the second replica's half of the batch
seen = []
for step in range(4):
    qat.fit(x, np.ones((8, 2)), batch_size=8, shuffle=False, verbose=0)
    for layer in (*range_layers(qat), *kernel_layers(qat)):
        [same(variable) for variable in layer.variables]
    image = qat.get_layer("image>quantizer")
    scales = [layer.encoding().scale for layer in range_layers(qat)]
    kernels = [layer.kernel_encoding().scale for layer in kernel_layers(qat)]
    seen.append(np.concatenate([scales, *map(np.ravel, kernels)]))
    print("step", step, float(same(image.extent)[0]))
"""


def fitted(options):
    """What four steps on two replicas print, and the namespace's assertions hold."""
    code = CODE + options.pop("then", "")
    result = subprocess.run([sys.executable, "-c", code, repr(options)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return [float(line.split()[2]) for line in result.stdout.splitlines() if line.startswith("step")]


def test_a_moving_average_follows_the_mean_of_what_the_replicas_saw():
    x = np.random.default_rng(0).random((8, 8, 8, 3)).astype("float32")
    calibrated = np.random.default_rng(1).random((4, 8, 8, 3)).astype("float32").max()
    mean = (x[:4].max() + 1.8 * x[4:].max()) / 2
    extents = fitted({"ranges": "moving_average", "decay": 0.9})
    expected = [mean + 0.9 ** (step + 1) * (calibrated - mean) for step in range(4)]
    # Calibration's mse may clip a little; its trace is gone by the same powers.
    np.testing.assert_allclose(np.diff(extents)[1:] / np.diff(extents)[:-1], 0.9, rtol=1e-3)
    np.testing.assert_allclose(extents, expected, atol=0.05)


@pytest.mark.parametrize("target", ["tensorrt", "tflite"])
def test_learned_ranges_and_kernels_are_the_same_on_every_replica(target):
    then = "assert all((a != b).all() for a, b in zip(seen, seen[1:])), seen"
    assert len(fitted({"target": target, "ranges": "learned", "then": then})) == 4


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_frozen_ranges_stay_on_every_replica(ranges):
    then = "\nassert np.array_equal(seen[2][:3], seen[3][:3]), seen\nassert (seen[0][:3] != seen[1][:3]).all(), seen"
    if ranges == "learned":
        then += "\nassert np.array_equal(seen[2], seen[3]), seen"
    assert len(fitted({"ranges": ranges, "freeze_after": 2, "then": then})) == 4
