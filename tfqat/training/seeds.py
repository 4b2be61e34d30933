"""Seeds: what makes a run a function of its seed alone."""

from __future__ import annotations

import keras


def make_deterministic(seed: int) -> None:
    """Seeds Python, numpy and the backend; on TensorFlow without a GPU also turns on deterministic ops.

    Not on GPUs: there, ops without a deterministic form (some gradients of resizing and pooling) would raise.
    """
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow" and not _has_gpu():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def jit_setting() -> bool | str:
    """`jit_compile` for this machine: XLA makes small convolutions several times slower on TensorFlow's CPU backend."""
    return False if keras.backend.backend() == "tensorflow" and not _has_gpu() else "auto"


def seed_layers(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets the state of each random layer (Dropout, ...) to a function of seed, epoch and the layer's position."""
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for position, state in enumerate(states):
        state.assign([(seed + position) % 2**32, epoch])


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
