"""Rewriting: a float Keras model made into one that quantizes itself, and back."""

# Before any module of this package: what follows Keras' import (tfqat.keras_hook) imports some of them, whole.
import keras  # noqa: F401
