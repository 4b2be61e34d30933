"""Outputs: the two arrays of a detector, by name."""

from __future__ import annotations

from typing import Any

import keras

from tfqat.errors import TfqatError

# In the order in which Keras flattens a dict.
BOXES, CLASSES = "box_regression", "class_logits"
ORDER = (BOXES, CLASSES)


def check_outputs(model: keras.Model, source: str, anchors: int, num_classes: int | None) -> None:
    """Raises TfqatError unless ``model`` gives both outputs for that many anchors and classes."""
    expected = (
        f"a dict of {CLASSES} ({anchors}, {num_classes or 'classes'}) and {BOXES} ({anchors}, 4), one row an anchor"
    )
    given = model.output
    if not isinstance(given, dict) or set(given) != set(ORDER):
        received = sorted(given) if isinstance(given, dict) else f"{len(model.outputs)} outputs without these names"
        raise TfqatError(
            f"model_config: {source} has {received}; a detector gives {expected}. The architectures efficientdet_d0 to "
            "efficientdet_d7 do."
        )
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in given.items()}
    classes = shapes[CLASSES][-1] if num_classes is None else num_classes
    if shapes != {CLASSES: (anchors, classes), BOXES: (anchors, 4)}:
        raise TfqatError(
            f"model_config: {source} has outputs of the shapes {shapes}; expected {expected}. Change "
            "model_config.num_classes, dataset_config.image_size, detection_config or the model."
        )


def num_classes_of(model: keras.Model) -> int:
    """How many classes the model tells apart."""
    return int(model.output[CLASSES].shape[-1])


def by_name(outputs: Any) -> dict[str, Any]:
    """Name -> array, of arrays in Keras' order."""
    return dict(zip(ORDER, outputs, strict=True))
