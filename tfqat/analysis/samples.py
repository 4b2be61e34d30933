"""Samples: the images, or other inputs, that a model is analysed on, with their labels where the data have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.graph.feed import by_input
from tfqat.graph.graph import Graph

# Rows at a time of data that come in whole arrays.
ROWS = 128


@dataclass(frozen=True, eq=False)
class Samples:
    """``inputs``: model input -> array, the batch first; ``labels``: one integer a sample, None without."""

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def parts(self, size: int) -> Iterator[Samples]:
        """The samples in order, ``size`` at a time; the last part may be smaller."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            inputs = {name: array[rows] for name, array in self.inputs.items()}
            yield Samples(inputs, None if self.labels is None else self.labels[rows])


def read_samples(graph: Graph, dataset: Any, count: int) -> Samples:
    """The first ``count`` samples of a dataset, all of them where it has fewer; whole batches of a fixed size.

    Args:
        graph: the model.
        dataset: batches as ``model.fit`` takes them, or one array, or ``(x, y)`` of arrays.
        count: at least 1.

    Raises:
        TfqatError: there is none, or a batch does not fit the model's inputs.
    """
    parts, labels, found = [], [], 0
    for batch in _batches(dataset):
        given, target = _parted(batch, len(graph.inputs))
        fed = {name: _array(value) for name, value in by_input(graph, given).items()}
        parts.append(fed)
        labels.append(None if target is None or not hasattr(target, "shape") else _array(target))
        found += len(next(iter(fed.values())))
        if found >= count:
            break
    count = _whole_batches(graph, min(count, found))
    inputs = {name: np.concatenate([part[name] for part in parts])[:count] for name in graph.inputs}
    typed = {name: array.astype(graph.dtypes[name], copy=False) for name, array in inputs.items()}
    return Samples(typed, _labels(labels, count))


def batch_size_of(graph: Graph) -> int | None:
    """The batch size that the model is made for; None where it takes any."""
    return graph.shapes[graph.inputs[0]][0]


def _whole_batches(graph: Graph, found: int) -> int:
    size = batch_size_of(graph) or 1
    if found < size:
        has = "no sample" if found == 0 else f"{found} samples"
        raise TfqatError(f"The data have {has}, expected at least {size}. Give data that can be read again and again.")
    return found - found % size


def _batches(dataset: Any) -> Iterable[Any]:
    if isinstance(dataset, tuple) and len(dataset) == 2 and all(hasattr(part, "shape") for part in dataset):
        x, y = map(np.asarray, dataset)
        return ((x[start : start + ROWS], y[start : start + ROWS]) for start in range(0, len(x), ROWS))
    if hasattr(dataset, "shape"):
        x = np.asarray(dataset)
        return (x[start : start + ROWS] for start in range(0, len(x), ROWS))
    return dataset


def _parted(batch: Any, inputs: int) -> tuple[Any, Any]:
    """Inputs and labels of a batch, as ``model.fit`` tells them apart."""
    if isinstance(batch, tuple) and len(batch) in (2, 3):
        return batch[0], batch[1]
    if isinstance(batch, tuple) and len(batch) == 1:
        return batch[0], None
    if isinstance(batch, list) and inputs == 1 and len(batch) == 1:
        return batch[0], None
    return batch, None


def _array(value: Any) -> np.ndarray:
    return np.asarray(value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value))


def _labels(parts: list[np.ndarray | None], count: int) -> np.ndarray | None:
    """One integer a sample, from integers or one-hot rows; None where the targets are no classes."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    labels = np.concatenate(known)[:count]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
    return labels if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) else None
