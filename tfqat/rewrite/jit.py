"""Jit: whether XLA pays on this backend and device."""

from __future__ import annotations

import keras


def jit_pays() -> bool:
    """False on TensorFlow without a GPU, where XLA makes quantized steps several times slower (measured: 8 times)."""
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
