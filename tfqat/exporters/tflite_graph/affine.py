"""Affine ops in TFLite: ``y = gain * x + shift``, one of each a channel, as a 1 x 1 depthwise convolution.

A channel's kernel is one int8 ``w`` at scale ``|gain| / w``, and its bias an integer at ``s_x * |gain| / w``: rounding
that bias would move results that are almost half-way between two integers. But ``w`` is free, and the scale need not be
met to the last bit: those are taken with which each of the 256 integers that may come becomes the one that it should.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, Padding

from tfqat.core.encoding import Encoding
from tfqat.core.scheme import SCALE_FLOOR
from tfqat.exporters.tflite_graph.emission import Emission, Step, Unsupported
from tfqat.exporters.tflite_graph.flatbuffer import Tensor
from tfqat.exporters.tflite_graph.weighted import Kernel, array, constants, grid_of
from tfqat.graph.graph import Op, Ref

SMALLEST, LARGEST = 64, 127
EDGE = 2.0**-21
# Beside a shift of more than this many steps a gain is nothing.
FARTHEST = 2**30

Affine = tuple[np.ndarray, np.ndarray]


def affine(emission: Emission, step: Step) -> None:
    """Any op of AFFINE, in any rank; the channels are the last axis."""
    op, shape = step.op, emission.shape(step.op.inputs[0])
    if emission.shape(op.outputs[0]) != shape:
        raise Unsupported("its constant has more axes than its input: use one number, or one a channel")
    gain, shift = (_a_channel(values, shape[-1] or 1) for values in AFFINE[op.kind](op, len(shape)))
    per_channel(emission, step, emission.read(op.inputs[0]), gain, shift)


def per_channel(emission: Emission, step: Step, source: Tensor, gain: np.ndarray, shift: np.ndarray) -> None:
    """Writes ``gain * source + shift`` as the step's output; both float64, shape (channels,)."""
    kernel = kernel_of(gain, shift, grid_of(source), emission.encoding(step.output))
    _convolve(emission, step.op.name, source, emission.declare(step.output), kernel, step.activation)


def requantize(emission: Emission, source: Tensor, encoding: Encoding, name: str) -> Tensor:
    """Writes the tensor ``name``: the numbers of ``source`` on the grid of ``encoding``.

    TFLite's QUANTIZE would do it, but *measured*, its int8 form has 5 to 13 % of the integers a step off.
    """
    channels = source.shape[-1] or 1
    kernel = kernel_of(np.ones(channels), np.zeros(channels), grid_of(source), encoding)
    result = emission.inner(name, source.shape, encoding)
    _convolve(emission, name, source, result, kernel, ActivationFunctionType.NONE)
    return result


def _convolve(emission: Emission, name: str, source: Tensor, result: Tensor, kernel: Kernel, activation: int) -> None:
    """Writes ``result`` as the 1 x 1 depthwise convolution of ``source``, an image or not."""
    weights, bias = constants(emission, name, source, kernel, grid_of(result))
    emission.derived[weights.name] = "an affine op's gain, which the scale holds"
    options = {"padding": Padding.VALID, "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    options |= {"fusedActivationFunction": activation}
    if len(source.shape) == 4:
        emission.flatbuffer.add("DEPTHWISE_CONV_2D", [source, weights, bias], result, **options)
        return
    image = emission.inner(f"{name}/image", (None, 1, 1, len(kernel.bias)), source.encoding)
    moved = emission.inner(f"{name}/result", image.shape, result.encoding)
    emission.reshape(source, image)
    emission.flatbuffer.add("DEPTHWISE_CONV_2D", [image, weights, bias], moved, **options)
    emission.reshape(moved, result)


def kernel_of(gain: np.ndarray, shift: np.ndarray, source: Encoding, target: Encoding) -> Kernel:
    """The kernel of a gain and a shift a channel, from the grid of ``source`` to that of ``target``.

    A channel without a choice that is right for all integers gets the first, with the largest ``w``.
    """
    wanted = _Wanted.of(gain, shift, source, target)
    floor = np.maximum(np.abs(shift) / (np.float64(source.scale) * FARTHEST), np.float64(SCALE_FLOOR))
    scale, integers, steps = (np.zeros(len(gain)) for _ in range(3))
    missing = np.arange(len(gain))
    for choice in range(LARGEST, SMALLEST - 1, -1):
        exact = np.maximum(np.abs(gain[missing]) / choice, floor[missing])
        weight = np.rint(gain[missing] / exact)
        bias = np.rint(shift[missing] / (np.float64(source.scale) * exact))
        fitting, fits = wanted.scales(missing, weight, bias, exact)
        taken = fits | (choice == LARGEST)
        places = missing[taken]
        scale[places], integers[places], steps[places] = fitting[taken], weight[taken], bias[taken]
        missing = missing[~fits]
        if not len(missing):
            break
    scale = scale.astype(np.float32)
    bias = steps * np.float64(source.scale) * scale
    return Kernel(integers.astype(np.int8).reshape(1, 1, 1, -1), scale, 3, bias)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """For each channel (row) and integer of the input (column): the interval of ``y / s_y`` that is rounded right.

    Attributes:
        steps: the input's integers without the zero point.
        ratio: ``s_x / s_y``.
        low, high: the interval's ends; infinite where the output's grid ends.
    """

    steps: np.ndarray
    ratio: float
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, gain: np.ndarray, shift: np.ndarray, source: Encoding, target: Encoding) -> _Wanted:
        steps = np.arange(source.scheme.qmin, source.scheme.qmax + 1, dtype=np.float64) - int(source.zero_point)
        ratio = float(source.scale) / float(target.scale)
        rounded = np.rint(gain[:, None] * steps * ratio + shift[:, None] / float(target.scale))
        first, last = (limit - int(target.zero_point) for limit in (target.scheme.qmin, target.scheme.qmax))
        low = np.where(rounded <= first, -np.inf, np.minimum(rounded, last) - 0.5)
        high = np.where(rounded >= last, np.inf, np.maximum(rounded, first) + 0.5)
        return cls(steps, ratio, low, high)

    def scales(
        self, channels: np.ndarray, weight: np.ndarray, bias: np.ndarray, exact: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A channel: the scale nearest to ``exact`` that is right for all integers, and whether there is one."""
        sums = (weight[:, None] * self.steps + bias[:, None]) * self.ratio
        low, high = self.low[channels], self.high[channels]
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([low / sums, high / sums])
        ends[:, sums == 0] = [[-np.inf], [np.inf]]
        least, most = ends.min(axis=0).max(axis=1), ends.max(axis=0).min(axis=1)
        # Not to the very edge: float32 has 24 bits.
        least, most = least + EDGE * exact, most - EDGE * exact
        fits = least <= most
        return np.where(fits, np.clip(exact, least, np.maximum(least, most)), exact), fits


def _a_channel(values: np.ndarray, channels: int) -> np.ndarray:
    if values.size not in (1, channels) or (values.size > 1 and values.shape[-1] != channels):
        raise Unsupported(
            f"its constant has the shape {values.shape}: use one number, or one for each of the {channels} channels"
        )
    return np.broadcast_to(values.reshape(-1), (channels,))


def _rescaling(op: Op, rank: int) -> Affine:
    return _pair(op.source.built.scale, op.source.built.offset)


def _normalization(op: Op, rank: int) -> Affine:
    layer = op.source.built
    mean, deviation = array(layer.mean).astype(np.float64), np.sqrt(array(layer.variance).astype(np.float64))
    if layer.invert:
        return deviation, mean
    gain = 1 / np.maximum(deviation, keras.config.epsilon())
    return gain, -mean * gain


def _batch_normalization(op: Op, rank: int) -> Affine:
    config, values = op.source.config, [array(value).astype(np.float64) for value in op.source.values]
    if config["axis"] not in (-1, rank - 1):
        raise Unsupported(f"its axis is {config['axis']}: TFLite's channels are the last axis")
    gamma = values.pop(0) if config["scale"] else 1.0
    beta = values.pop(0) if config["center"] else 0.0
    gain = gamma / np.sqrt(values[1] + config["epsilon"])
    return gain, beta - values[0] * gain


def _add(op: Op, rank: int) -> Affine:
    return _pair(1, _constant(op))


def _subtract(op: Op, rank: int) -> Affine:
    return _pair(-1, _constant(op)) if _constant_first(op) else _pair(1, -_constant(op))


def _multiply(op: Op, rank: int) -> Affine:
    return _pair(_constant(op), 0)


def _divide(op: Op, rank: int) -> Affine:
    if _constant_first(op):
        raise Unsupported("it divides a constant by its input, which has no int8 form: leave it out of the model")
    return _pair(1 / _constant(op), 0)


def _pair(gain: Any, shift: Any) -> Affine:
    return np.asarray(gain, np.float64), np.asarray(shift, np.float64)


def _constant(op: Op) -> np.ndarray:
    """The constant of a binary op with one tensor; where the op's layer holds it, what the layer makes of 0 or 1."""
    if op.source.values:
        if op.kind in ("add_constant", "subtract_constant"):
            return _made_of(op, 0.0) * (-1 if op.kind == "subtract_constant" and not _constant_first(op) else 1)
        return _made_of(op, 1.0) if op.kind == "multiply_constant" else 1 / _made_of(op, 1.0)
    return np.asarray(next(value for value in _arguments(op) if not isinstance(value, Ref)), np.float64)


def _made_of(op: Op, number: float) -> np.ndarray:
    return array(keras.ops.convert_to_numpy(op.source.built(keras.ops.full((1,), number)))).astype(np.float64)


def _constant_first(op: Op) -> bool:
    if op.source.values:
        return bool((_made_of(op, 1.0) < _made_of(op, 0.0)).any())
    return not isinstance(_arguments(op)[0], Ref)


def _arguments(op: Op) -> list[Any]:
    return [*op.args, *op.kwargs.values()]


AFFINE: Mapping[str, Callable[[Op, int], Affine]] = {
    "rescaling": _rescaling,
    "normalization": _normalization,
    "batch_normalization": _batch_normalization,
    "add_constant": _add,
    "subtract_constant": _subtract,
    "multiply_constant": _multiply,
    "divide_constant": _divide,
}
