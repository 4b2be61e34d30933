"""Two replicas under tf.distribute see different data and end with the same ranges."""

import subprocess
import sys

CODE = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, tfqat
from tfqat.rewrite.model import range_layers
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs)))
    qat = tfqat.prepare(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))))
    tfqat.calibrate(qat, [np.full((4, 8, 8, 3), 1e-3, "float32")])
    qat.compile("sgd", "mse")
x = np.random.default_rng(0).random((32, 8, 8, 3)).astype("float32")
x[4:8] *= 5  # the second replica's half of the first batch
qat.fit(x, np.ones((32, 2)), batch_size=8, epochs=1, shuffle=False, verbose=0)
for layer in range_layers(qat):
    first, second = (float(value.numpy()[0]) for value in layer.extent.value.values)
    assert first == second > 0.01, (first, second)
print("same on", len(range_layers(qat)))
"""


def test_ranges_are_the_same_on_every_replica():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip().endswith("same on 2")
