"""Model file: an exported classifier opened by the program that reads it, as a function from images to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfqat.errors import TfqatError
from tfqat.exporters import cache as caches
from tfqat.exporters import layer_precisions, onnx_file
from tfqat.verification.runner import Runner
from tfqat.verification.simulation import simulate


class ModelFileError(TfqatError):
    """A file that is no classifier of the data's images."""


@dataclass(frozen=True)
class ModelFile:
    """An open file.

    Attributes:
        name: what it is called in tables.
        run_by: the program that runs it.
        predict: images ``(batch, height, width, channels)`` float32 -> scores ``(batch, classes)`` float32.
        note: what is to be said of it.
    """

    name: str
    run_by: str
    predict: Callable[[np.ndarray], np.ndarray]
    note: str = ""


def open_onnx(
    path: Path, image_shape: Sequence[int], cache: Path | None = None, precisions: Path | None = None
) -> ModelFile:
    """A float or Q/DQ ONNX; with a cache, the INT8 engine that TensorRT would build of a float one.

    Args:
        path: the ONNX file.
        image_shape: of the data, ``(height, width, channels)``.
        cache: a TensorRT calibration cache.
        precisions: the layers that stay float beside the cache.

    Raises:
        TfqatError: a file that is broken or of another kind, or takes other images.
        OSError: a file cannot be opened.
    """
    model = onnx_file.load(path)
    if cache is None:
        return _onnx(path.name, Runner(model), image_shape)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelFileError(f"{path} has Q/DQ nodes of its own; a cache belongs to a float ONNX. Leave --cache out.")
    kept = layer_precisions.read(precisions) if precisions else {}
    simulation = simulate(model, caches.read(cache), kept)
    name = f"{path.name} + {cache.name}" + (f" + {precisions.name}" if precisions else "")
    return _onnx(name, Runner(simulation.model), image_shape, f"Cache: {simulation.coverage}.")


def open_tflite(path: Path, image_shape: Sequence[int]) -> ModelFile:
    """A TFLite flatbuffer, integer or float; see :func:`open_onnx` for arguments and errors."""
    from ai_edge_litert.interpreter import Interpreter

    from tfqat.verification.tflite_runner import TfliteRunner

    data = path.read_bytes()
    runner = TfliteRunner(data)
    sizes = [entry["shape_signature"] for entry in Interpreter(model_content=data).get_input_details()]
    shapes = [tuple(None if size < 0 else int(size) for size in shape) for shape in sizes]
    # The interpreter takes any number of images, whatever the file says.
    return _opened(path.name, "LiteRT", runner, [(None, *shape[1:]) for shape in shapes], image_shape)


def _onnx(name: str, runner: Runner, image_shape: Sequence[int], note: str = "") -> ModelFile:
    return _opened(name, "onnxruntime", runner, runner.input_shapes, image_shape, note)


def _opened(
    name: str,
    run_by: str,
    runner: Any,
    shapes: Sequence[Sequence[int | None]],
    image_shape: Sequence[int],
    note: str = "",
) -> ModelFile:
    if len(runner.inputs) != 1 or len(runner.outputs) != 1:
        raise ModelFileError(
            f"{name} has {len(runner.inputs)} inputs and {len(runner.outputs)} outputs, expected one of each: a "
            "classifier of images."
        )
    check_images(name, shapes[0], image_shape)
    size, key = shapes[0][0], runner.inputs[0]

    def predict(images: np.ndarray) -> np.ndarray:
        parts = [next(iter(runner.run({key: part}).values())) for part in _portions(images, size)]
        return np.concatenate(parts)[: len(images)]

    return ModelFile(name, run_by, predict, note)


def check_images(name: str, taken: Sequence[int | None], image_shape: Sequence[int]) -> None:
    """Refuses a file that takes other images than the data has.

    Raises:
        ModelFileError: says whether only the layout differs.
    """
    size, wanted = tuple(taken[1:]), tuple(image_shape)
    if _fits(size, wanted):
        return
    message = f"{name} takes images of shape {size}, expected {wanted}, as dataset_config has them."
    if len(size) == 3 and _fits((size[1], size[2], size[0]), wanted):
        message = (
            f"{name} takes channels first, {size}; expected channels last, {wanted}, as Keras and tfqat have them. "
            "Put a Transpose before its input, or export it with channels last."
        )
    raise ModelFileError(message)


def _fits(size: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return len(size) == len(wanted) and all(a is None or a == b for a, b in zip(size, wanted, strict=True))


def _portions(images: np.ndarray, size: int | None) -> list[np.ndarray]:
    """The images in batches of the size that the file takes; the last one is filled up with its own last image."""
    if size is None or len(images) == size:
        return [images]
    starts = range(0, len(images), size)
    parts = [images[start : start + size] for start in starts]
    lacking = size - len(parts[-1])
    return [*parts[:-1], np.concatenate([parts[-1], np.repeat(parts[-1][-1:], lacking, axis=0)])]
