"""Weighted ops in TFLite: int8 kernels with a scale an output channel, int32 biases, int32 accumulators.

``real = scale * (integer - zero point)``; kernels are symmetric in [-127, 127]; a bias is ``round(b / (s_x * s_w))``
with zero point 0. Source: TensorFlow Lite 8-bit quantization specification, CONV_2D, DEPTHWISE_CONV_2D,
FULLY_CONNECTED; TRANSPOSE_CONV follows CONV_2D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from ai_edge_litert.schema_py_generated import Padding, TensorType

from tfqat.core.encoding import Encoding
from tfqat.exporters.tflite_graph.emission import Emission, Step, Unsupported, check_channels_last
from tfqat.exporters.tflite_graph.flatbuffer import Tensor
from tfqat.graph.graph import Op

PADDING = {"same": Padding.SAME, "valid": Padding.VALID, "causal": Padding.VALID}
# XNNPACK loads no model that goes beyond.
COARSEST = 256
BIAS_LIMIT = 2**31 - 1
GROUPED = 6  # version of CONV_2D


@dataclass(frozen=True, eq=False)
class Kernel:
    """What a weighted op multiplies and adds.

    Attributes:
        integers: int8, laid out as TFLite has them.
        scale: one for all, or one an index of ``axis``.
        axis: the output channels.
        bias: real numbers, one a channel.
    """

    integers: np.ndarray
    scale: np.ndarray
    axis: int
    bias: np.ndarray


def conv(emission: Emission, step: Step) -> None:
    """Keras' kernel is (h, w, in, out), TFLite's (out, h, w, in)."""
    config = step.op.source.config
    inputs = _inputs(emission, step, order=(3, 0, 1, 2), axis=0)
    version = GROUPED if config["groups"] > 1 else None
    add_image(emission, step, "CONV_2D", inputs, version, **_window(step))


def depthwise_conv(emission: Emission, step: Step) -> None:
    """Keras' kernel is (h, w, C, M), TFLite's (1, h, w, C * M)."""
    multiplier = step.op.kernel_shape[-1]
    inputs = _inputs(emission, step, order=(0, 1, 2, 3), axis=3, merged=True)
    add_image(emission, step, "DEPTHWISE_CONV_2D", inputs, depthMultiplier=multiplier, **_window(step))


def conv_transpose(emission: Emission, step: Step) -> None:
    """Keras' kernel is (h, w, out, in), TFLite's (out, h, w, in); the first input is the output's shape."""
    config = step.op.source.config
    if config.get("output_padding") is not None:
        raise Unsupported("output_padding is set: TFLite derives it from the output's size; leave it None")
    if set(config["dilation_rate"]) != {1}:
        raise Unsupported("dilation_rate is above 1: TFLite's TRANSPOSE_CONV has none; use UpSampling2D and Conv2D")
    source, kernel, bias = _inputs(emission, step, order=(2, 0, 1, 3), axis=0)
    options = {key: value for key, value in _window(step).items() if not key.startswith("dilation")}
    version = None if step.follower is None else 4
    inputs = [_output_shape(emission, step, source), kernel, source, bias]
    add_image(emission, step, "TRANSPOSE_CONV", inputs, version, **options)


def add_image(
    emission: Emission, step: Step, operator: str, inputs: Sequence[Tensor], version: int | None = None, **options: Any
) -> None:
    """Appends an operator that works on images; a sequence is one of height 1."""
    shape = emission.shape(step.output)
    if len(shape) == 4:
        emission.add(step, operator, inputs, version, **options)
        return
    name = step.op.name
    source = next(tensor for tensor in inputs if tensor.encoding is not None)
    image = emission.inner(f"{name}/image", (source.shape[0], 1, *source.shape[1:]), source.encoding)
    emission.reshape(source, image)
    result = emission.inner(f"{name}/row", (shape[0], 1, *shape[1:]), emission.encoding(step.output))
    given = [image if tensor is source else tensor for tensor in inputs]
    emission.flatbuffer.add(operator, given, result, version, **options)
    emission.reshape(result, emission.declare(step.output))


def dense(emission: Emission, step: Step) -> None:
    """Keras' kernel is (in, out), TFLite's (out, in)."""
    more_axes = len(emission.shape(step.op.inputs[0])) > 2
    inputs = _inputs(emission, step, order=(1, 0), axis=0)
    options = {"fusedActivationFunction": step.activation, "keepNumDims": more_axes}
    emission.add(step, "FULLY_CONNECTED", inputs, 5 if more_axes else None, **options)


def constants(emission: Emission, name: str, source: Tensor, kernel: Kernel, target: Encoding) -> list[Tensor]:
    """The kernel and the bias of what reads ``source`` and writes ``target``, as constants of the file.

    Raises:
        Unsupported: a bias does not fit int32, or the output's grid is far too fine.
    """
    steps = np.float64(grid_of(source).scale) * np.asarray(kernel.scale, np.float64)
    coarsest = float(steps.max() / np.float64(target.scale))
    if coarsest >= COARSEST:
        raise Unsupported(
            f"its accumulator's step is {coarsest:.3g} steps of its output, and kernels go to {COARSEST}: its output's "
            "range is next to nothing; calibrate with data that reach it"
        )
    rounded = np.rint(kernel.bias.astype(np.float64) / steps)
    if (np.abs(rounded) > BIAS_LIMIT).any():
        raise Unsupported(
            f"a bias is {np.abs(rounded).max():.3g} steps of its accumulator, more than int32 holds: its channel's "
            "kernel is almost zero beside it; finalize the model, which gives such channels a coarser scale"
        )
    flatbuffer = emission.flatbuffer
    return [
        flatbuffer.constant(f"{name}/kernel", kernel.integers, kernel.scale, kernel.axis),
        flatbuffer.constant(f"{name}/bias", rounded.astype(np.int32), steps.astype(np.float32)),
    ]


def grid_of(tensor: Tensor) -> Encoding:
    """The Encoding of a tensor, which must have one."""
    if tensor.encoding is None:
        raise Unsupported(f"{tensor.name!r} has no scale")
    return tensor.encoding


def array(value: Any) -> np.ndarray:
    """A weight of a Keras layer as float32."""
    return np.asarray(keras.ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value, np.float32)


def _inputs(emission: Emission, step: Step, order: Sequence[int], axis: int, merged: bool = False) -> list[Tensor]:
    """What is read, the kernel with its axes in ``order`` (the last two ``merged``), and the bias."""
    check_channels_last(step.op)
    kernel, *rest = (array(value) for value in step.op.source.values)
    encoding = _encoding(emission, step.op)
    integers = _on_grid(kernel, encoding)
    integers = np.transpose(integers[None] if integers.ndim < len(order) else integers, order)
    if merged:
        integers = integers.reshape(1, *integers.shape[:2], -1)
    channels = integers.shape[axis]
    bias = rest[0] if rest else np.zeros(channels, np.float32)
    source = _with_past(emission, step, emission.read(step.op.inputs[0]))
    made = Kernel(integers, encoding.scale, axis, bias)
    return [source, *constants(emission, step.op.name, source, made, emission.encoding(step.output))]


def _with_past(emission: Emission, step: Step, source: Tensor) -> Tensor:
    """What a causal convolution reads: zeros before the first step, so that none sees a later one."""
    config = step.op.source.config
    if config.get("padding") != "causal":
        return source
    before = config["dilation_rate"][0] * (config["kernel_size"][0] - 1)
    steps = emission.shape(step.op.inputs[0])[1] or 1
    padded = emission.inner(f"{step.op.name}/past", (source.shape[0], steps + before, source.shape[2]), source.encoding)
    widths = emission.integers(f"{padded.name}/widths", [(0, 0), (before, 0), (0, 0)])
    emission.flatbuffer.add("PAD", [source, widths], padded)
    return padded


def _encoding(emission: Emission, op: Op) -> Encoding:
    weights = emission.learnt.weights
    if op.name not in weights:
        raise Unsupported(f"stays float: {emission.learnt.float_ops.get(op.name, 'its kernel has no scale')}")
    encoding = weights[op.name]
    scheme = encoding.scheme
    if scheme.bits > 8 or not scheme.symmetric:
        raise Unsupported(f"its kernel's scheme is {scheme}; TFLite's kernels are symmetric int8: prepare for tflite")
    return encoding


def _on_grid(kernel: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The kernel's integers; it must be on the grid of its Encoding already."""
    integers = encoding.quantize(kernel).astype(np.int8)
    return np.maximum(integers, -127, out=integers)


def _window(step: Step) -> dict[str, Any]:
    """How a kernel moves over the image."""
    config = step.op.source.config
    (stride_h, stride_w), (dilation_h, dilation_w) = ((1, *config[key])[-2:] for key in ("strides", "dilation_rate"))
    return {
        "padding": PADDING[config["padding"]],
        "strideH": stride_h,
        "strideW": stride_w,
        "dilationHFactor": dilation_h,
        "dilationWFactor": dilation_w,
        "fusedActivationFunction": step.activation,
    }


def _output_shape(emission: Emission, step: Step, source: Tensor) -> Tensor:
    """The shape of a transposed convolution's output, its batch that of the input, whatever it is resized to."""
    name, flatbuffer = step.op.name, emission.flatbuffer
    shape = emission.inner(f"{name}/input_shape", (len(source.shape),), None)
    flatbuffer.add("SHAPE", [source], shape, outType=TensorType.INT32)
    batch = emission.inner(f"{name}/batch", (), None)
    ends = [emission.integers(f"{name}/{word}", [value]) for word, value in (("begin", 0), ("end", 1), ("step", 1))]
    flatbuffer.add("STRIDED_SLICE", [shape, *ends], batch, 1, shrinkAxisMask=1)
    height, width, channels = (1, *emission.shape(step.output)[1:])[-3:]
    sizes = [
        emission.integers(f"{name}/size{axis}", np.int32(size or 1))
        for axis, size in enumerate((height, width, channels), start=1)
    ]
    result = emission.inner(f"{name}/output_shape", (len(sizes) + 1,), None)
    flatbuffer.add("PACK", [batch, *sizes], result, valuesCount=len(sizes) + 1, axis=0)
    return result
