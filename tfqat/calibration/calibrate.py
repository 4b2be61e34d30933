"""Calibrate: the ranges of a prepared model set from a few batches, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import keras
import numpy as np

from tfqat.calibration.histogram import Histogram, NotFinite
from tfqat.calibration.methods import METHODS
from tfqat.calibration.report import CalibratedRange, CalibrationReport
from tfqat.core.scheme import SCALE_FLOOR
from tfqat.errors import TfqatError
from tfqat.graph.feed import by_input
from tfqat.graph.graph import Graph, bypass
from tfqat.graph.run import run
from tfqat.rewrite.absorbed import release
from tfqat.rewrite.model import kernel_layers, range_layers
from tfqat.rewrite.quantizer import RangeEstimator, extent_of_range
from tfqat.view.view import view


def calibrate(
    model: keras.Model,
    dataset: Iterable[Any],
    method: str = "mse",
    batches: int = 8,
    percentile: float = 99.99,
) -> CalibrationReport:
    """Sets the range of each Quantizer from the values that its tensor takes, with the kernels quantized.

    Args:
        model: one that ``prepare`` returned; its ranges are set in place.
        dataset: batches as ``model.fit`` takes them (``x``, ``(x, y)`` or ``(x, y, weights)``), or one array, or
            ``(x, y)`` of arrays, which is taken in batches of 32.
        method: ``minmax``, ``percentile``, ``mse`` (the least squared error over a search of ranges, per tensor) or
            ``entropy`` (TensorRT's: the least divergence of the rounded values).
        batches: how many are looked at, at most.
        percentile: of the ``percentile`` method, above 0 and at most 100.

    Returns:
        What was found; names the Quantizers that saw no data.

    Raises:
        TfqatError: an unknown method, a model without Quantizers, values that are NaN or infinite.
    """
    check_method(method, batches, percentile)
    layers = range_layers(model)
    if not layers and not kernel_layers(model):
        raise TfqatError(f"Model {model.name!r} has no Quantizers; calibrate the one that tfqat.prepare returned.")
    graph = view(model)
    layers_of = {op.inputs[0]: op.source.built for op in graph.ops if isinstance(op.source.built, RangeEstimator)}
    tensors = {tensor: layer for tensor, layer in layers_of.items() if layer.fixed_range is None}
    unquantized = bypass(release(graph), [op.name for op in graph.ops if isinstance(op.source.built, RangeEstimator)])
    histograms = {tensor: Histogram() for tensor in tensors}
    seen = 0
    for inputs in islice(inputs_of(dataset), batches):
        _look(unquantized, inputs, histograms)
        seen += 1
    found = {t: h for t, h in histograms.items() if not h.empty}
    ranges = tuple(_set(tensors[t], t, h, method, percentile) for t, h in found.items())
    return CalibrationReport(method, seen, ranges, tuple(t for t in tensors if t not in found))


def check_method(method: str, batches: int, percentile: float) -> None:
    if method not in METHODS:
        raise TfqatError(f"method: expected one of {', '.join(METHODS)}, received {method!r}.")
    if batches < 1:
        raise TfqatError(f"batches: expected at least 1, received {batches!r}.")
    if not 0 < percentile <= 100:
        raise TfqatError(f"percentile: expected above 0 and at most 100, received {percentile!r}.")


def inputs_of(dataset: Iterable[Any]) -> Iterator[Any]:
    """The model inputs of each batch."""
    if isinstance(dataset, tuple) and len(dataset) == 2 and all(hasattr(part, "shape") for part in dataset):
        dataset = dataset[0]  # (x, y), both whole
    if hasattr(dataset, "shape"):
        array = np.asarray(dataset)
        dataset = (array[start : start + 32] for start in range(0, len(array), 32))
    for batch in dataset:
        yield batch[0] if isinstance(batch, tuple) else batch


def _look(graph: Graph, inputs: Any, histograms: dict[str, Histogram]) -> None:
    """Adds one batch to the histograms; tensors are dropped as soon as nobody needs them."""
    fed = by_input(graph, inputs)
    values = {name: keras.ops.convert_to_tensor(value, dtype=graph.dtypes[name]) for name, value in fed.items()}

    def note(tensor: str, value: Any) -> None:
        if tensor in histograms:
            try:
                histograms[tensor].add(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")))
            except NotFinite as error:
                raise TfqatError(
                    f"Calibration: tensor {tensor!r} has NaN or infinite values; check the data and the weights."
                ) from error

    for tensor, value in values.items():
        note(tensor, value)

    def visit(op: Any, outputs: list[Any]) -> list[Any]:
        for tensor, value in zip(op.outputs, outputs, strict=True):
            note(tensor, value)
        return outputs

    run(graph, values, visit, keep=())


def _set(layer: RangeEstimator, tensor: str, histogram: Histogram, method: str, percentile: float) -> CalibratedRange:
    low, high = METHODS[method](histogram, layer.scheme, percentile)
    low, high = min(low, 0.0), max(high, 0.0)
    layer.set_range(extent_of_range(layer.scheme, low, high))
    dead = max(-low, high) / layer.scheme.qmax <= float(SCALE_FLOOR)
    return CalibratedRange(tensor, histogram.low, histogram.high, low, high, dead)
