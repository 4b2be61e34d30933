"""Outputs: the two arrays of a detector, by name."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.tails.tail import BOXES as FOUND_BOXES
from tfqat.tails.tail import CLASSES as FOUND_CLASSES
from tfqat.tails.tail import COUNT, SCORES
from tfqat.verification.model_file import ModelFileError

# In the order in which Keras flattens a dict.
BOXES, CLASSES = "box_regression", "class_logits"
ORDER = (BOXES, CLASSES)
# What a file with decoding and suppression gives instead: boxes in pixels, scores, classes, how many are there.
FINISHED = (FOUND_BOXES, SCORES, FOUND_CLASSES, COUNT)


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


def check_raw(name: str, outputs: Sequence[np.ndarray], anchors: int, num_classes: int | None) -> None:
    """Raises ModelFileError unless the arrays are those of a detector: both raw ones, or those of a finished file."""
    if len(outputs) == len(FINISHED):
        _check_labels(name, outputs[FINISHED.index(FOUND_CLASSES)], num_classes)
        return
    expected, received = [(anchors, 4), (anchors, num_classes)], [array.shape[1:] for array in outputs]
    if received != expected:
        raise ModelFileError(
            f"{name} gives outputs of the shapes {received}, expected {expected}: box regression and class logits of "
            "each anchor. Name a file of a model that was trained on these data."
        )


def _check_labels(name: str, labels: np.ndarray, num_classes: int | None) -> None:
    top = int(labels.max(initial=0))
    if num_classes is not None and top >= num_classes:
        raise ModelFileError(
            f"{name} finds a class {top}, expected 0 to {num_classes - 1}. Name a file of a model that was trained on "
            "these data."
        )


def num_classes_of(model: keras.Model) -> int:
    """How many classes the model tells apart."""
    return int(model.output[CLASSES].shape[-1])
