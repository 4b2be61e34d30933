"""View: what the user's Keras model is made of, seen as a Graph."""

# Before any module of this package: what follows Keras' import (tfqat.keras_hook) imports some of them, whole.
import keras  # noqa: F401
