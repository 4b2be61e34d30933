"""Mixed precision: a whole run, what the loss scale is for, and that the exported numbers are float32."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfqat
from tfqat.errors import TfqatError
from tfqat.jobs.train import train
from tfqat.models.load import load_model
from tfqat.rewrite.model import range_layers
from tfqat.tasks.classification.criterion import loss_for
from tfqat.training.stages import read_stages


def compute_dtypes(model):
    return {layer.compute_dtype for layer in model._flatten_layers(include_self=False) if layer.weights}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_a_run(make_spec, policy, ranges):
    quantization = {"ranges": ranges, "calibration": {"method": "minmax", "batches": 1}}
    spec = make_spec({"quantization_config": quantization}, precision=policy, float_epochs=2)
    train(spec)
    assert keras.config.dtype_policy().name == "float32"
    results = Path(spec.results_dir)
    qat = load_model(results / "qat.keras")
    short = policy.removeprefix("mixed_")
    assert compute_dtypes(load_model(results / "float.keras")) == {short}
    kernels = [layer for layer in qat.layers if hasattr(layer, "kernel")]
    assert {layer.compute_dtype for layer in kernels} == {short}
    assert {variable.dtype for variable in qat.trainable_variables} == {"float32"}
    assert all(float(layer.extent[0]) > 0 and np.isfinite(layer.extent).all() for layer in range_layers(qat))
    stages = {stage.name: stage.score for stage in read_stages(results / "stages.json")}
    assert stages["finalized"] == pytest.approx(stages["QAT"], abs=0.02)
    assert compute_dtypes(tfqat.finalize(qat)) == {"float32"}
    checkpoint = keras.models.load_model(results / "checkpoints" / "qat-0001.keras")
    scaled = isinstance(checkpoint.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    if scaled:
        # One clean step at least since the last overflow: the scale is part of the state that a run goes on from.
        assert float(checkpoint.optimizer.dynamic_scale) > 1
        assert int(checkpoint.optimizer.iterations) > 0


def test_gradients_that_float16_cannot_hold_train_nevertheless():
    """The loss is so small that its gradients are below float16's least number (6e-8), but not once scaled."""
    from tfqat.tasks.compiled import compile_with
    from tfqat.training.optimizer import with_loss_scale

    image = keras.Input((4,))
    x = layers.Dense(8, activation="relu", dtype="mixed_float16")(image)
    model = tfqat.prepare(keras.Model(image, layers.Dense(2, dtype="mixed_float16")(x)))
    inputs = np.random.default_rng(0).normal(0, 1, (16, 4)).astype(np.float32)
    tfqat.calibrate(model, [inputs])
    moved = {}
    for name, change in (("plain", lambda optimizer, _: optimizer), ("scaled", with_loss_scale)):
        optimizer = change(keras.optimizers.SGD(1e8), model)
        optimizer.build(model.trainable_variables)
        compile_with(model, optimizer, lambda y, y_pred: 1e-8 * keras.ops.mean(keras.ops.square(y_pred - y)))
        before = np.array(model.layers[-1].kernel)
        model.train_on_batch(inputs, np.ones((16, 2), np.float32))
        moved[name] = np.abs(np.array(model.layers[-1].kernel) - before).max()
    assert moved["plain"] == 0
    assert moved["scaled"] > 0.1


def test_a_function_that_sets_its_own_types_is_told(make_spec, user_module):
    def net(input_shape, num_classes):
        image = keras.Input(input_shape)
        return keras.Model(image, layers.Dense(num_classes, dtype="float32")(layers.Flatten()(image)))

    user_module.net = net
    with pytest.raises(TfqatError, match="expected layers of mixed_bfloat16, but those of the model are of float32"):
        train(make_spec(precision="mixed_bfloat16"))


def test_probabilities_of_bfloat16_are_known_as_such():
    """Rounded one by one, they do not sum to 1 within 1e-3."""
    image = keras.Input((8,))
    model = keras.Model(image, layers.Dense(5, activation="softmax", dtype="mixed_bfloat16")(image))
    images = np.random.default_rng(0).normal(0, 1, (64, 8)).astype(np.float32)
    sums = np.array(keras.ops.cast(model(images), "float32")).sum(axis=-1)
    assert np.abs(sums - 1).max() > 1e-3
    assert not loss_for(model, [(images, None)]).from_logits
