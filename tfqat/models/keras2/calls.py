"""Calls: how a Keras 2 model calls its layers, where those of Keras 3 are called or compute otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfqat.models.keras2.layers import RECURRENT

# Layers whose list of inputs begins with the sequence and goes on with the states to start from.
_WITH_STATES = RECURRENT | {"RNN", "Bidirectional"}
# By which layers draw random numbers, unless it is zero.
_RANDOM = ("rate", "stddev", "dropout", "recurrent_dropout", "generator")


def call_layer(class_name: str, layer: Any, first: Any, arguments: Mapping[str, Any]) -> Any:
    """What the layer gives, called as Keras 2 called it.

    Raises:
        ValueError: Keras 3's layer computes something else, called so.
    """
    if not any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten([first, arguments])):
        raise ValueError(
            "it is called on constants, and a Keras 3 model computes nothing of those. Give them as an Input"
        )
    _check_training(layer, arguments.get("training"))
    if isinstance(layer, keras.layers.RandomCrop):
        _check_crop(layer, first)
    if class_name in _WITH_STATES and isinstance(first, list):
        return layer(first[0], initial_state=first[1:], **arguments)
    return layer(first, **arguments)


def _check_training(layer: Any, training: Any) -> None:
    # A Keras 3 model tells its layers whether they train, whatever they were called with.
    if isinstance(training, bool | int) and training and any(map(_trains, layer._flatten_layers())):
        raise ValueError(
            "it was called with training=True, and Keras 3 runs it as in training only while the model trains. Call it "
            "without the argument, or replace it by a layer of your own that does the same"
        )


def _trains(layer: Any) -> bool:
    """Whether the layer computes something else in training."""
    return isinstance(layer, keras.layers.BatchNormalization) or any(getattr(layer, name, 0) for name in _RANDOM)


def _check_crop(layer: Any, images: Any) -> None:
    size = (layer.height, layer.width)
    if tuple(images.shape[-3:-1]) != size:
        raise ValueError(
            f"outside of training Keras 2 resizes images of {images.shape[-3:-1]} to {size}, and Keras 3 leaves them "
            "as they are. Crop in the dataset, or put a Resizing or CenterCrop layer in its place"
        )
