"""Vocabulary: what a lookup layer has learnt from data by adapt(), which not every kind of file holds."""

from __future__ import annotations

import keras

from tfqat.errors import TfqatError

_LOOKUPS = (keras.layers.TextVectorization, keras.layers.StringLookup, keras.layers.IntegerLookup)


def check_vocabularies(model: keras.Model, source: str) -> None:
    """Raises TfqatError where a lookup layer of ``model`` came without its vocabulary: it could not run."""
    for layer in model._flatten_layers():
        if isinstance(layer, _LOOKUPS) and not layer.get_vocabulary(include_special_tokens=False):
            raise TfqatError(
                f"{source}: layer {layer.name!r} ({type(layer).__name__}) has no vocabulary: it was adapted, and this "
                "kind of file holds only one that the layer was made with. Make it with vocabulary=layer."
                "get_vocabulary(), or look up in the dataset; a Keras 3 model can also be saved as .keras."
            )
