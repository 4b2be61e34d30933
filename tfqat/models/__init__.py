"""Models: the float Keras models that a spec names, and the reading of model files."""

# Before any module of this package: what follows Keras' import (tfqat.keras_hook) imports some of them, whole.
import keras  # noqa: F401
