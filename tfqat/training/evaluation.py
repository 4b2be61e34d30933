"""Evaluation: loss and accuracy of a model over a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfqat.training.seeds import jit_setting

# How far the sum of probabilities may be from 1: those of bfloat16 have 8 bits each.
ROUNDED = 0.02


@dataclass(frozen=True)
class Score:
    """Mean cross entropy, and the share of images whose highest output is the label's (0 to 1)."""

    loss: float
    accuracy: float


def evaluate_model(model: keras.Model, dataset: Any) -> Score:
    """The Score of ``model`` over batches of (images, integer labels). A compiled model keeps its compilation."""
    if not model.compiled:
        compile_model(model, None, loss_for(model, dataset))
    found = model.evaluate(dataset, verbose=0, return_dict=True)
    return Score(float(found["loss"]), float(found["accuracy"]))


def compile_model(model: keras.Model, optimizer: Any, loss: keras.losses.Loss) -> None:
    """Compiles for classification; ``optimizer`` None where the model is only evaluated."""
    if optimizer is None:
        # Keras cannot load a file of a model that was compiled without one. This one has no state to save.
        optimizer = keras.optimizers.SGD()
        optimizer.build(model.trainable_variables)
    # The loss is scaled by the optimizer given, if at all: one that Keras puts around it has no state yet to restore.
    model.compile(
        optimizer=optimizer, loss=loss, metrics=["accuracy"], jit_compile=jit_setting(), auto_scale_loss=False
    )


def loss_for(model: keras.Model, dataset: Any) -> keras.losses.Loss:
    """Cross entropy that fits the outputs: probabilities where those of the first batch are, else logits."""
    images, _ = next(iter(dataset))
    outputs = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float64)
    probabilities = outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=ROUNDED)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
