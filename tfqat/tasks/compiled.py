"""Compiled: how every task compiles a model."""

from __future__ import annotations

from typing import Any

import keras

from tfqat.training.seeds import jit_setting


def compile_with(model: keras.Model, optimizer: Any, loss: Any, **options: Any) -> None:
    """Compiles with losses; ``optimizer`` None where the model is only evaluated, ``options`` as ``compile`` takes."""
    if optimizer is None:
        # Keras cannot load a file of a model that was compiled without one. This one has no state to save.
        optimizer = keras.optimizers.SGD()
        optimizer.build(model.trainable_variables)
    # The loss is scaled by the optimizer given, if at all: one that Keras puts around it has no state yet to restore.
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit_setting(), auto_scale_loss=False, **options)
