"""Fill: scales for the tensors that a model was never trained against, from a run of the trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import onnx

from tfqat.calibration.calibrate import check_method, inputs_of
from tfqat.calibration.histogram import Histogram, NotFinite
from tfqat.calibration.methods import METHODS
from tfqat.core.encoding import Encoding, Encodings, encoding_of_range
from tfqat.errors import TfqatError
from tfqat.exporters.exportable import Fill
from tfqat.exporters.onnx_masks import masks_of
from tfqat.graph.feed import by_input
from tfqat.graph.graph import Graph
from tfqat.verification.runner import Runner

# All tensors of the images of one run are in memory at once: 90 MB an image for ResNet50.
_IMAGES = 1


def filling(
    dataset: Iterable[Any],
    method: str = "mse",
    batches: int = 8,
    percentile: float = 99.99,
    graph: Graph | None = None,
) -> Fill:
    """The Fill that runs a Q/DQ ONNX on ``dataset`` and calibrates each tensor that has no Encoding.

    Args:
        dataset: as ``calibrate`` takes it.
        method, batches, percentile: as ``calibrate`` takes them.
        graph: the model, by whose inputs nests and mappings are read; None where batches are arrays, or have the names
            of the file's inputs.

    Raises:
        TfqatError: an unknown method.
    """
    check_method(method, batches, percentile)

    def fill(model: onnx.ModelProto, told: Encodings) -> Mapping[str, Encoding]:
        scheme = next(iter(told.activations.values())).scheme
        given: Iterator[Any] = islice(inputs_of(dataset), batches)
        if graph is not None:
            given = (list(by_input(graph, inputs).values()) for inputs in given)
        histograms = _histograms(model, told, given)
        ranges = {name: METHODS[method](histogram, scheme, percentile) for name, histogram in histograms.items()}
        return {
            name: encoding_of_range(scheme, min(low, 0.0), max(high, 0.0), "calibrated")
            for name, (low, high) in ranges.items()
        }

    return fill


def _histograms(model: onnx.ModelProto, told: Encodings, batches: Iterable[Any]) -> dict[str, Histogram]:
    masks = masks_of(model)
    wanted = [name for name in _tensors(model) if name not in told.activations and name not in masks]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {info.name for info in model.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    runner = Runner(shown)
    found: dict[str, Histogram] = {name: Histogram() for name in wanted}
    for inputs in _parts(runner, batches):
        _check_finite(inputs)
        for name, values in {**inputs, **runner.run(inputs, [n for n in wanted if n not in inputs])}.items():
            if name in found and values.dtype == np.float32 and values.size:
                try:
                    found[name].add(values)
                except NotFinite as error:
                    raise TfqatError(f"Calibration at export: tensor {name!r} has NaN or infinite values.") from error
    return {name: histogram for name, histogram in found.items() if not histogram.empty}


def _check_finite(inputs: Mapping[str, np.ndarray]) -> None:
    for name, values in inputs.items():
        if not np.isfinite(values).all():
            raise TfqatError(f"Calibration at export: the images for {name!r} have NaN or infinite values.")


def _tensors(model: onnx.ModelProto) -> list[str]:
    """Inputs and what nodes compute from them, but for what Q/DQ nodes and constants give."""
    names = [info.name for info in model.graph.input]
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            names += [name for name in node.output if name]
    return names


def _parts(runner: Runner, batches: Iterable[Any]) -> Iterator[dict[str, np.ndarray]]:
    """The batches as input name -> array, _IMAGES at a time, or as many as the model takes."""
    count = next((shape[0] for shape in runner.input_shapes if shape and shape[0]), _IMAGES)
    for batch in batches:
        inputs = {name: np.asarray(value, runner.input_types[name]) for name, value in runner.named(batch).items()}
        images = len(next(iter(inputs.values())))
        for start in range(0, images, count):
            yield {name: value[start : start + count] for name, value in inputs.items()}
