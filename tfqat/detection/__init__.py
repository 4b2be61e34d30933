"""The maths of detection: anchors, boxes, matching, losses, suppression; numbers in, numbers out."""

# Before any module of this package: what follows Keras' import (tfqat.keras_hook) imports some of them, whole.
import keras  # noqa: F401
