"""Walk: a model computed one op at a time over all images, so that an op can be changed before others read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from tfqat.calibration.calibrate import inputs_of
from tfqat.graph.feed import by_input
from tfqat.graph.graph import Graph, Op
from tfqat.graph.run import run_op

Batch = dict[str, np.ndarray]


class Walk:
    """The tensors of a graph, batch by batch, as far as its ops have been computed and others still read them."""

    def __init__(self, graph: Graph, batches: Iterable[Batch]) -> None:
        self.graph = graph
        self.batches: list[dict[str, Any]] = [
            {name: keras.ops.convert_to_tensor(value, dtype=graph.dtypes[name]) for name, value in batch.items()}
            for batch in batches
        ]
        self.last_reader = {tensor: op.name for op in graph.ops for tensor in op.inputs}

    def step(self, op: Op) -> None:
        """Computes the op, or computes it again."""
        for tensors in self.batches:
            tensors.update(zip(op.outputs, run_op(op, tensors), strict=True))

    def leave(self, op: Op) -> None:
        """Forgets the tensors that nobody reads after the op."""
        for tensor in (*op.inputs, *op.outputs):
            if self.last_reader.get(tensor, op.name) == op.name:
                for tensors in self.batches:
                    tensors.pop(tensor, None)

    def values(self, tensor: str) -> Iterator[np.ndarray]:
        """The tensor, one array a batch, float32."""
        for tensors in self.batches:
            yield np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensors[tensor], "float32")))


def gather(graph: Graph, dataset: Iterable[Any], images: int) -> list[Batch]:
    """The first batches of a dataset, as input name -> array: as many as hold ``images`` images, or all there are."""
    found: list[Batch] = []
    count = 0
    for inputs in inputs_of(dataset):
        batch = {name: np.asarray(value) for name, value in by_input(graph, inputs).items()}
        found.append(batch)
        count += len(next(iter(batch.values())))
        if count >= images:
            break
    return found


def moments(values: Iterable[np.ndarray], axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel over all batches, float64. The first batch's mean is taken off first."""
    center: Any = None
    count, total, squares = 0, np.float64(0), np.float64(0)
    for value in values:
        rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]).astype(np.float64)
        center = rows.mean(axis=0) if center is None else center
        rows = rows - center
        count, total, squares = count + len(rows), total + rows.sum(axis=0), squares + np.square(rows).sum(axis=0)
    mean = total / count
    return np.asarray(center + mean), np.asarray(np.maximum(squares / count - mean * mean, 0.0))
