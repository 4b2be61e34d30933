"""Batches: the data that a model is imported with, checked against it, and its accuracy on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfqat.calibration.calibrate import inputs_of
from tfqat.errors import TfqatError

_EXPECTED = "batches as model.fit takes them, or (x, y) of arrays"


def check_batches(model: keras.Model, dataset: Any) -> None:
    """Looks at the first batch: whether the model's inputs can take it.

    Raises:
        TfqatError: nothing that can be iterated, another number of inputs, images of another shape, no numbers.
    """
    if isinstance(dataset, str | bytes | dict) or not _can_be_read(dataset):
        raise TfqatError(f"dataset: expected {_EXPECTED}; received {type(dataset).__name__} {str(dataset)[:60]!r}.")
    first = next(inputs_of(dataset), None)
    if first is None:
        return
    given = keras.tree.flatten(first)
    if len(given) != len(model.inputs):
        raise TfqatError(
            f"dataset: the model has {len(model.inputs)} inputs, {[tensor.name for tensor in model.inputs]}; a batch "
            f"has {len(given)}. Expected {_EXPECTED}."
        )
    for tensor, value in _pairs(model, first):
        _check_input(tensor, value)


def _can_be_read(dataset: Any) -> bool:
    try:
        iter(dataset)
    except TypeError:
        return False
    return True


def _pairs(model: keras.Model, batch: Any) -> Iterable[tuple[Any, Any]]:
    """Each input of the model and its values; of a dictionary by name, where the names are those of the inputs."""
    by_name = {tensor.name: tensor for tensor in model.inputs}
    if isinstance(batch, dict) and batch.keys() == by_name.keys():
        return [(by_name[name], value) for name, value in batch.items()]
    return list(zip(keras.tree.flatten(model.input), keras.tree.flatten(batch), strict=True))


def _check_input(tensor: Any, value: Any) -> None:
    value = np.asarray(value)
    shape, wanted = value.shape, tuple(tensor.shape)
    fits = len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))
    if not fits or value.dtype.kind not in "biuf":
        raise TfqatError(
            f"dataset: a batch has shape {shape} and dtype {value.dtype} for the input {tensor.name!r}; expected "
            f"numbers of shape {wanted}, where None is any size, the first that of the batch. Give {_EXPECTED}."
        )


def is_labelled(dataset: Any) -> bool:
    """Whether the first batch has labels besides its inputs."""
    first = next(iter(_batches(dataset)), None)
    return isinstance(first, tuple) and len(first) >= 2


def accuracy(model: keras.Model, dataset: Any) -> float:
    """Share of the labelled images whose highest output is the label's; labels are integers or one-hot.

    Raises:
        TfqatError: labels of another shape, or outside of the classes.
    """
    right = total = 0
    for images, labels, *_ in _batches(dataset):
        outputs = np.asarray(model.predict_on_batch(images))
        truth = _classes_of(np.asarray(labels), outputs.shape)
        right += int((outputs.argmax(axis=-1) == truth).sum())
        total += truth.size
    return right / max(total, 1)


def _classes_of(labels: np.ndarray, outputs: tuple[int, ...]) -> np.ndarray:
    predictions, classes = outputs[:-1], outputs[-1]
    if labels.shape not in (outputs, predictions, (*predictions, 1)):
        raise TfqatError(
            f"dataset: labels have shape {labels.shape}; expected one integer a prediction, {predictions}, or one-hot, "
            f"{outputs}. Give the images alone where there is no class to compare."
        )
    if labels.shape == outputs:
        return labels.argmax(axis=-1)
    if labels.dtype.kind not in "biuf" or not ((labels >= 0) & (labels < classes)).all():
        found = f"{labels.min()} to {labels.max()}" if labels.dtype.kind in "biuf" else f"dtype {labels.dtype}"
        raise TfqatError(
            f"dataset: labels are {found}; expected integers from 0 to {classes - 1}, as the model has {classes} "
            "classes. Give the images alone where there is no class to compare."
        )
    return labels.reshape(predictions)


def _batches(dataset: Any) -> Iterable[Any]:
    """The batches of a dataset; ``(x, y)`` of arrays in batches of 128."""
    if isinstance(dataset, tuple) and len(dataset) == 2 and all(hasattr(part, "shape") for part in dataset):
        images, labels = (np.asarray(part) for part in dataset)
        return [(images[at : at + 128], labels[at : at + 128]) for at in range(0, len(images), 128)]
    return dataset
