"""Spatial ops in TFLite: pooling, reductions, resizing.

Source: TensorFlow Lite 8-bit quantization specification: AVERAGE_POOL_2D, MAX_POOL_2D, RESIZE_BILINEAR keep the grid of
their input, and so do REDUCE_MAX and RESIZE_NEAREST_NEIGHBOR; MEAN has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ai_edge_litert.schema_py_generated import ActivationFunctionType

from tfqat.exporters.tflite_graph.emission import (
    Emission,
    Step,
    Unsupported,
    check_channels_last,
    positive_axes,
    setting,
)
from tfqat.exporters.tflite_graph.weighted import PADDING, add_image


def pooling(operator: str) -> Callable[[Emission, Step], None]:
    """AVERAGE_POOL_2D (which counts no padding, as Keras) or MAX_POOL_2D."""

    def emit(emission: Emission, step: Step) -> None:
        check_channels_last(step.op)
        rank = len(emission.shape(step.op.inputs[0])) - 2
        height, width = _two(setting(step.op, "pool_size"), rank)
        stride_h, stride_w = _two(setting(step.op, "strides") or (height, width)[-rank:], rank)
        add_image(
            emission,
            step,
            operator,
            [emission.read(step.op.inputs[0], emission.encoding(step.output))],
            padding=PADDING[setting(step.op, "padding", "valid")],
            filterHeight=height,
            filterWidth=width,
            strideH=stride_h,
            strideW=stride_w,
            fusedActivationFunction=ActivationFunctionType.NONE,
        )

    return emit


def global_pooling(operator: str) -> Callable[[Emission, Step], None]:
    """MEAN or REDUCE_MAX over all axes but the batch and the channels."""

    def emit(emission: Emission, step: Step) -> None:
        check_channels_last(step.op)
        if len(step.op.inputs) > 1:
            raise Unsupported("it leaves masked steps out: TFLite's reductions take all; leave the mask out")
        _reduce(emission, step, operator, tuple(range(1, len(emission.shape(step.op.inputs[0])) - 1)))

    return emit


def reduction(operator: str) -> Callable[[Emission, Step], None]:
    """MEAN, REDUCE_MAX or REDUCE_MIN over any axes but the batch."""

    def emit(emission: Emission, step: Step) -> None:
        if setting(step.op, "initial") is not None:
            raise Unsupported("it has an initial value, which TFLite's reductions have not: leave it out")
        rank = len(emission.shape(step.op.inputs[0]))
        _reduce(emission, step, operator, positive_axes(setting(step.op, "axis"), rank))

    return emit


def up_sampling(operator: str, modes: tuple[str, ...], **options: Any) -> Callable[[Emission, Step], None]:
    """RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR by a whole factor."""

    def emit(emission: Emission, step: Step) -> None:
        check_channels_last(step.op)
        mode = setting(step.op, "interpolation", "nearest")
        if mode not in modes:
            raise Unsupported(f"its interpolation is {mode!r}: TFLite has nearest and bilinear")
        sizes = (1, *(size or 1 for size in emission.shape(step.output)[1:-1]))[-2:]
        source = emission.read(step.op.inputs[0], emission.encoding(step.output))
        given = [source, emission.integers(f"{step.op.name}/size", sizes)]
        add_image(emission, step, operator, given, alignCorners=False, **options)

    return emit


def _reduce(emission: Emission, step: Step, operator: str, axes: tuple[int, ...]) -> None:
    positions = emission.integers(f"{step.op.name}/axes", axes)
    keep = bool(setting(step.op, "keepdims", False))
    if operator == "MEAN":
        emission.add(step, operator, [emission.read(step.op.inputs[0]), positions], keepDims=keep)
    else:
        emission.add_shared(step, operator, positions, keepDims=keep)


def _two(value: int | Sequence[int], rank: int) -> tuple[int, int]:
    """A size along height and width; a sequence has height 1."""
    height, width = (1, *([value] * rank if isinstance(value, int) else value))[-2:]
    return int(height), int(width)
