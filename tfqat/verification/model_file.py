"""Model file: an exported model of images opened by the program that reads it, as a function to its outputs."""

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

ImageShape = Sequence[int]


class ModelFileError(TfqatError):
    """A file that is no model of the data's images."""


@dataclass(frozen=True)
class ModelFile:
    """An open file.

    Attributes:
        name: what it is called in tables.
        run_by: the program that runs it.
        predict: images ``(batch, height, width, channels)`` float32 -> outputs in the file's order, float32.
        note: what is to be said of it.
    """

    name: str
    run_by: str
    predict: Callable[[np.ndarray], list[np.ndarray]]
    note: str = ""


def open_onnx(
    path: Path,
    image_shape: ImageShape,
    cache: Path | None = None,
    precisions: Path | None = None,
    outputs: int = 1,
) -> ModelFile:
    """A float or Q/DQ ONNX; with a cache, the INT8 engine that TensorRT would build of a float one.

    Args:
        path: the ONNX file.
        image_shape: of the data, ``(height, width, channels)``.
        cache: a TensorRT calibration cache.
        precisions: the layers that stay float beside the cache.
        outputs: how many the model has.

    Raises:
        TfqatError: a file that is broken or of another kind, or takes other images.
        OSError: a file cannot be opened.
    """
    model = onnx_file.load(path)
    if cache is None:
        return _onnx(path.name, Runner(model), image_shape, outputs)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelFileError(f"{path} has Q/DQ nodes of its own; a cache belongs to a float ONNX. Leave --cache out.")
    kept = layer_precisions.read(precisions) if precisions else {}
    simulation = simulate(model, caches.read(cache), kept)
    name = f"{path.name} + {cache.name}" + (f" + {precisions.name}" if precisions else "")
    return _onnx(name, Runner(simulation.model), image_shape, outputs, f"Cache: {simulation.coverage}.")


def open_tflite(path: Path, image_shape: ImageShape, outputs: int = 1) -> ModelFile:
    """A TFLite flatbuffer, integer or float; see :func:`open_onnx` for arguments and errors."""
    from tfqat.verification.tflite_runner import TfliteRunner

    runner = TfliteRunner(path.read_bytes())
    return _opened(path.name, "LiteRT", runner, runner.input_shapes, image_shape, outputs)


def _onnx(name: str, runner: Runner, image_shape: ImageShape, outputs: int, note: str = "") -> ModelFile:
    return _opened(name, "onnxruntime", runner, runner.input_shapes, image_shape, outputs, note)


def _opened(
    name: str,
    run_by: str,
    runner: Any,
    shapes: Sequence[Sequence[int | None]],
    image_shape: ImageShape,
    outputs: int,
    note: str = "",
) -> ModelFile:
    check_count(name, len(runner.inputs), len(runner.outputs), outputs)
    check_images(name, shapes[0], image_shape)
    size, key = shapes[0][0], runner.inputs[0]

    def predict(images: np.ndarray) -> list[np.ndarray]:
        parts = [runner.run({key: part}).values() for part in portions(images, size)]
        return [np.concatenate(column)[: len(images)] for column in zip(*parts, strict=True)]

    return ModelFile(name, run_by, predict, note)


def check_count(name: str, inputs: int, outputs: int, expected: int) -> None:
    """Refuses a file that has not one input and as many outputs as expected.

    Raises:
        ModelFileError: says how many of each.
    """
    if (inputs, outputs) != (1, expected):
        raise ModelFileError(
            f"{name}: expected {_counted(1, expected)}, as the models of this spec have; received "
            f"{_counted(inputs, outputs)}. Name a file that was made of such a model."
        )


def _counted(inputs: int, outputs: int) -> str:
    ends = {count: "s" * (count != 1) for count in (inputs, outputs)}
    return f"{inputs} input{ends[inputs]} and {outputs} output{ends[outputs]}"


def check_images(name: str, taken: Sequence[int | None], image_shape: ImageShape) -> None:
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


def portions(images: np.ndarray, size: int | None) -> list[np.ndarray]:
    """The images in batches of the size that the file takes; the last one is filled up with its own last image."""
    if size is None or len(images) == size:
        return [images]
    starts = range(0, len(images), size)
    parts = [images[start : start + size] for start in starts]
    lacking = size - len(parts[-1])
    return [*parts[:-1], np.concatenate([parts[-1], np.repeat(parts[-1][-1:], lacking, axis=0)])]
