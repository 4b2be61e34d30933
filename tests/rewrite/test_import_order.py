"""Saved models load with nothing but ``import tfqat``, whichever of keras and tfqat comes first; JAX works as well."""

import importlib.util
import os
import subprocess
import sys

import pytest

import tfqat

LOAD = """
import {0}
import {1}
import numpy as np
model = keras.models.load_model({2!r})
print(float(np.array(model(np.ones((1, 8, 8, 3)))).sum()))
"""
JAX = """
import numpy as np, tfqat, keras
from tfqat.rewrite.model import range_layers
assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
inputs = keras.Input((8, 8, 3))
x = keras.layers.Conv2D(8, 3, use_bias=False)(inputs)
x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
x = keras.layers.Concatenate()([x, keras.layers.MaxPooling2D(3, 1, padding="same")(x)])
x = keras.layers.Conv2D(8, 3, activation="swish")(x)
model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
data, labels = np.random.rand(32, 8, 8, 3).astype("float32"), np.arange(32) % 2
data += labels[:, None, None, None]
both_ends = {"target": "sima", "ranges": "learned", "ranges_rate_multiplier": 10.0, "freeze_after": 20}
for options in ({}, {"ranges": "learned"}, both_ends, {"ranges": "fixed"}):
    qat = tfqat.prepare(model, **options)
    assert not tfqat.calibrate(qat, [data]).no_data
    qat.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = qat.fit(data, labels, epochs=8, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    tfqat.freeze(qat)
    scales = [layer.encoding().scale for layer in range_layers(qat)]
    qat.fit(data * 3, labels, verbose=0)
    assert scales == [layer.encoding().scale for layer in range_layers(qat)]
    qat.save(PATH)
    again = keras.models.load_model(PATH)
    assert np.array_equal(qat.predict(data, verbose=0), again.predict(data, verbose=0))
    assert np.allclose(tfqat.finalize(qat).predict(data, verbose=0), qat.predict(data, verbose=0), atol=0.05)
print("done")
"""


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("order", [("keras", "tfqat"), ("tfqat", "keras")], ids=" then ".join)
def test_loads_in_either_order_of_import(zoo, tmp_path, order):
    import numpy as np

    model = zoo.conv_net()
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, [zoo.data(model)])
    path = str(tmp_path / "x.keras")
    qat.save(path)
    expected = float(np.array(qat(np.ones((1, 8, 8, 3)))).sum())
    assert float(run(LOAD.format(*order, path))) == expected


def test_importing_tfqat_does_not_import_keras():
    assert run("import sys, tfqat; print('keras' in sys.modules or 'tensorflow' in sys.modules)") == "False"


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed (pip install tfqat[jax])")
def test_prepare_calibrate_fit_save_and_load_on_jax(tmp_path):
    path = str(tmp_path / "x.keras")
    assert run(f"PATH = {path!r}\n{JAX}", KERAS_BACKEND="jax") == "done"
