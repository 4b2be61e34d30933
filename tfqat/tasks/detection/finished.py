"""Finished: a file with decoding and suppression of its own, opened as a function from images to detections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tfqat.exporters import cache as caches
from tfqat.exporters import layer_precisions, onnx_file
from tfqat.tails import tensorrt_nms
from tfqat.tails.onnx_tail import raw_part, with_raw_part
from tfqat.tails.plugin_runner import PluginRunner
from tfqat.tails.tail import COUNT
from tfqat.tails.tensorrt_nms import PLUGIN
from tfqat.tails.tflite_nms import POSTPROCESS
from tfqat.tasks.detection.outputs import FINISHED
from tfqat.verification.model_file import ImageShape, ModelFile, ModelFileError, check_images, portions
from tfqat.verification.runner import Runner
from tfqat.verification.simulation import simulate
from tfqat.verification.tflite_runner import TfliteRunner

WITHOUT_TENSORRT = "EfficientNMS_TRT is TensorRT's; here numpy does what its documentation says."


def is_finished(path: Path) -> bool:
    """Whether a file has a tail; a look at its bytes is enough."""
    if path.suffix.lower() not in (".onnx", ".tflite"):
        return False
    data = path.read_bytes()
    return POSTPROCESS.encode() in data if path.suffix.lower() == ".tflite" else COUNT.encode() in data


def open_finished(
    path: Path, shape: ImageShape, cache: Path | None = None, precisions: Path | None = None
) -> ModelFile:
    """Opens a finished file for images of ``shape``; ``predict`` gives the arrays of FINISHED.

    Raises:
        TfqatError: a file that is broken, of another kind, or takes other images.
        OSError: it cannot be opened.
    """
    if path.suffix.lower() == ".tflite":
        return _tflite(path, shape)
    model = onnx.load_model_from_string(path.read_bytes())
    plugin = any(node.op_type == PLUGIN for node in model.graph.node)
    if not plugin:
        return _opened(path.name, Runner(onnx_file.load(path)), shape, cache)
    model = tensorrt_nms.load(path)
    if cache is None:
        return _opened(path.name, PluginRunner(model), shape, None, WITHOUT_TENSORRT)
    kept = layer_precisions.read(precisions) if precisions else {}
    simulation = simulate(raw_part(model), caches.read(cache), kept)
    runner = PluginRunner(with_raw_part(model, simulation.model))
    return _opened(f"{path.name} + {cache.name}", runner, shape, None, f"{WITHOUT_TENSORRT} {simulation.coverage}.")


def _opened(name: str, runner: Runner, shape: ImageShape, cache: Path | None, note: str = "") -> ModelFile:
    if cache is not None:
        raise ModelFileError(f"{name} has Q/DQ nodes of its own; a cache belongs to a float ONNX. Leave --cache out.")
    check_images(name, runner.input_shapes[0], shape)
    key, size = runner.inputs[0], runner.input_shapes[0][0]

    def predict(images: np.ndarray) -> list[np.ndarray]:
        parts = [_ordered(runner.run({key: part})) for part in portions(images, size)]
        return [np.concatenate(column)[: len(images)] for column in zip(*parts, strict=True)]

    return ModelFile(name, "onnxruntime", predict, note)


def _tflite(path: Path, shape: ImageShape) -> ModelFile:
    runner = TfliteRunner(path.read_bytes())
    check_images(path.name, runner.input_shapes[0], shape)
    key, size = runner.inputs[0], np.tile(np.asarray(shape[:2], np.float32), 2)

    def predict(images: np.ndarray) -> list[np.ndarray]:
        parts = [_ordered(runner.run({key: image[None]})) for image in images]
        boxes, scores, classes, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
        return [boxes * size, scores, classes.astype(np.int32), counts]

    return ModelFile(path.name, "LiteRT", predict)


def _ordered(found: Mapping[str, Any]) -> list[np.ndarray]:
    """By the last part of the names: TFLite puts that of the tail before it."""
    short = {name.rpartition("/")[2]: np.asarray(value) for name, value in found.items()}
    return [short[name] for name in FINISHED]
