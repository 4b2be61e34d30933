"""Elementwise ops in TFLite: two tensors into one, and activations on their own.

Source: TensorFlow Lite 8-bit quantization specification. LOGISTIC, SOFTMAX, LOG_SOFTMAX and TANH write one fixed grid,
MAXIMUM and MINIMUM the grid of both their inputs, the others any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType

from tfqat.core.encoding import Encoding, encoding_of_slopes
from tfqat.exporters.tflite_graph.affine import per_channel
from tfqat.exporters.tflite_graph.emission import Emission, Step, Unsupported, setting
from tfqat.exporters.tflite_graph.flatbuffer import Tensor
from tfqat.exporters.tflite_graph.weighted import array, grid_of
from tfqat.graph.graph import Op

# Kind -> scale and zero point of its output.
FIXED: Mapping[str, tuple[float, int]] = {
    "sigmoid": (1 / 256, -128),
    "softmax": (1 / 256, -128),
    "log_softmax": (16 / 256, 127),
    "tanh": (1 / 128, 0),
}
# An op -> the fields of its operator's options.
OptionsOf = Callable[[Op], dict[str, Any]]

DEFAULT_SLOPE = 0.2  # of keras.activations.leaky_relu
MOST_AXES = 4  # of two inputs that broadcast


def binary(operator: str) -> Callable[[Emission, Step], None]:
    """ADD or SUB, each input on its own grid."""

    def emit(emission: Emission, step: Step) -> None:
        inputs = _pair(emission, step)
        emission.add(step, operator, inputs, fusedActivationFunction=step.activation, potScaleInt16=False)

    return emit


def multiply(emission: Emission, step: Step) -> None:
    """MUL, each input on its own grid."""
    one, other = _pair(emission, step)
    product = np.float64(grid_of(one).scale) * np.float64(grid_of(other).scale)
    finer = product >= np.float64(emission.encoding(step.output).scale)
    emission.add(step, "MUL", [one, other], 3 if finer else None, fusedActivationFunction=step.activation)


def extreme(operator: str) -> Callable[[Emission, Step], None]:
    """MAXIMUM or MINIMUM, which compare integers, so that all three tensors have one grid."""

    def emit(emission: Emission, step: Step) -> None:
        emission.add(step, operator, _pair(emission, step, emission.encoding(step.output)))

    return emit


def average(emission: Emission, step: Step) -> None:
    """``(x + y) / 2``: their sum on a grid twice as coarse as the output's, then half of it: the same integer."""
    target = emission.encoding(step.output)
    double = Encoding(target.scheme, target.scale * np.float32(2), target.zero_point, target.origin)
    inputs = _pair(emission, step)
    total = emission.inner(f"{step.op.name}/sum", emission.shape(step.output), double)
    emission.derived[total.name] = "a sum that will be halved: twice the scale of the average"
    plain = {"fusedActivationFunction": ActivationFunctionType.NONE, "potScaleInt16": False}
    emission.flatbuffer.add("ADD", inputs, total, **plain)
    channels = total.shape[-1] or 1
    per_channel(emission, step, total, np.full(channels, 0.5), np.zeros(channels))


def activation(operator: str, options: OptionsOf = lambda op: {}) -> Callable[[Emission, Step], None]:
    """An activation with one input."""

    def emit(emission: Emission, step: Step) -> None:
        _check_fixed(emission, step)
        emission.add(step, operator, [emission.read(step.op.inputs[0])], **options(step.op))

    return emit


def leaky_slope(op: Op) -> dict[str, Any]:
    """Options of LEAKY_RELU."""
    return {"alpha": float(getattr(op.source.built, "negative_slope", DEFAULT_SLOPE))}


def gelu_form(op: Op) -> dict[str, Any]:
    """Options of GELU."""
    return {"approximate": bool(setting(op, "approximate", False))}


def softmax_axis(op: Op) -> dict[str, Any]:
    """Options of SOFTMAX, which runs along the last axis."""
    _check_last_axis(op)
    return {"beta": 1.0}


def log_softmax_axis(op: Op) -> dict[str, Any]:
    """Options of LOG_SOFTMAX: none, but it runs along the last axis."""
    _check_last_axis(op)
    return {}


def elu_alpha(op: Op) -> dict[str, Any]:
    """ELU has no options, and knows an alpha of 1 only."""
    if float(getattr(op.source.built, "alpha", 1.0)) != 1.0:
        raise Unsupported("its alpha is not 1: TFLite's ELU has none; train with alpha=1")
    return {}


def prelu(emission: Emission, step: Step) -> None:
    """PRELU, its slopes as symmetric int8 with one scale."""
    alpha = array(step.op.source.values[0])
    encoding = encoding_of_slopes(alpha)
    integers = encoding.quantize(alpha).astype(np.int8)
    slopes = emission.flatbuffer.constant(f"{step.op.name}/alpha", integers, encoding.scale)
    emission.derived[slopes.name] = "trained in float: rounded to int8 by the largest when finalized"
    emission.add(step, "PRELU", [emission.read(step.op.inputs[0]), slopes])


def _pair(emission: Emission, step: Step, encoding: Encoding | None = None) -> list[Tensor]:
    inputs = step.op.inputs
    if len(inputs) != 2:
        raise Unsupported(f"it reads {len(inputs)} tensors: give it two, and the rest to further layers of its kind")
    shapes = [emission.shape(tensor) for tensor in inputs]
    if shapes[0] != shapes[1] and max(map(len, shapes)) > MOST_AXES:
        raise Unsupported(f"its inputs have the shapes {shapes}: TFLite broadcasts up to {MOST_AXES} axes")
    return [emission.read(tensor, encoding) for tensor in inputs]


def _check_fixed(emission: Emission, step: Step) -> None:
    """Refuses an Encoding other than the one that the specification fixes."""
    if step.op.kind not in FIXED:
        return
    scale, zero_point = FIXED[step.op.kind]
    found = emission.encoding(step.output)
    if float(found.scale) != scale or int(found.zero_point) != zero_point:
        raise Unsupported(
            f"its output has scale {found.scale} and zero point {found.zero_point}, where TFLite knows {scale} and "
            f"{zero_point} only: prepare the model for the target tflite"
        )


def _check_last_axis(op: Op) -> None:
    if setting(op, "axis", -1) not in (-1, len(op.source.built.output.shape) - 1):
        raise Unsupported(f"its axis is {setting(op, 'axis')}: TFLite's runs along the last; put Permutes around it")
