"""Q/DQ ONNX: the float ONNX with a QuantizeLinear and a DequantizeLinear at each quantized tensor and kernel.

``<tensor>/quantize`` and ``<tensor>/dequantize`` are names of nodes and of what they give; scales and zero points are
initializers ``<tensor>/scale`` and ``<tensor>/zero_point``. A tensor that is also a model output keeps its name behind
the DequantizeLinear, and is ``<tensor>/float`` before it. Tensors of origin ``calibrated`` get none: they lie inside
blocks that were trained without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError

# A kernel is stored as scale * integer in float32; more than this many steps off its grid is another kernel.
_OFF_GRID = 1e-2


class QdqError(TfqatError):
    """Encodings that do not fit the model, or that Q/DQ nodes cannot express."""


@dataclass(frozen=True)
class Weight:
    """The kernel of one weighted node: its initializer, and the axis of its output channels."""

    node: str
    initializer: str
    axis: int


def weights_of(model: onnx.ModelProto) -> dict[str, Weight]:
    """Node name -> Weight, of each Conv, ConvTranspose, Gemm and MatMul with a constant kernel."""
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        axis_of = _CHANNEL_AXIS.get(node.op_type)
        if axis_of is not None and len(node.input) > 1 and node.input[1] in constants:
            found[node.name] = Weight(node.name, node.input[1], axis_of(node, constants[node.input[1]]))
    return found


def _gemm_axis(node: onnx.NodeProto, rank: int) -> int:
    return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1


_CHANNEL_AXIS = {
    "Conv": lambda node, rank: 0,  # (out, in / group, *kernel), depthwise included
    "ConvTranspose": lambda node, rank: 1,  # (in, out / group, *kernel)
    "Gemm": _gemm_axis,
    "MatMul": lambda node, rank: rank - 1,
}


def insert(model: onnx.ModelProto, encodings: Encodings, int8_weights: bool = False) -> onnx.ModelProto:
    """A copy of ``model`` with Q/DQ after each tensor and kernel that ``encodings`` (in its names) holds.

    Args:
        model: float ONNX, opset 13 or higher.
        encodings: see ``carry.to_onnx``.
        int8_weights: kernels as int8 initializers with DequantizeLinear alone (TensorRT 10 and later; the parsers of
            8.0 and 8.2 refuse them), else float32 with both.

    Raises:
        QdqError: a name that the model lacks, a kernel off its grid, or a scheme of other than 8 bits.
    """
    _check_names(model, encodings)
    return _Inserter(model, encodings).inserted(int8_weights)


def trained(encodings: Encodings) -> dict[str, Encoding]:
    """The activation Encodings that the model was trained with, those that get Q/DQ."""
    return {name: e for name, e in encodings.activations.items() if e.origin != "calibrated"}


def _check_names(model: onnx.ModelProto, encodings: Encodings) -> None:
    tensors = {info.name for info in model.graph.input} | {name for node in model.graph.node for name in node.output}
    missing = [name for name in encodings.activations if name not in tensors]
    missing += [name for name in encodings.weights if name not in weights_of(model)]
    if missing:
        raise QdqError(
            f"{len(missing)} encoded tensors or kernels are not in the ONNX model: {missing[:10]}; the encodings come "
            f"from another model or export."
        )


class _Inserter:
    """The state of one insertion: nodes and initializers so far, and what each tensor's readers read now."""

    def __init__(self, model: onnx.ModelProto, encodings: Encodings) -> None:
        self.model, self.encodings = model, encodings
        self.activations = trained(encodings)
        self.outputs = {info.name for info in model.graph.output}
        self.weights = weights_of(model)
        self.arrays = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.instead: dict[str, str] = {}

    def inserted(self, int8_weights: bool) -> onnx.ModelProto:
        graph = self.model.graph
        for info in graph.input:
            self._after(info.name, info.name)
        for node in graph.node:
            self._copy(node, int8_weights)
        kept = [t for t in graph.initializer if t.name not in self.initializers and self._is_read(t.name)]
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
        copy.graph.node.extend(self.nodes)
        copy.graph.initializer.extend([*kept, *self.initializers.values()])
        return copy

    def _is_read(self, name: str) -> bool:
        if not hasattr(self, "_read"):
            self._read = {read for node in self.nodes for read in node.input} | self.outputs
        return name in self._read

    def _copy(self, node: onnx.NodeProto, int8_weights: bool) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        weight = self.weights.get(node.name)
        if weight is not None and node.name in self.encodings.weights:
            self._kernel(weight, self.encodings.weights[node.name], int8_weights)
        for i, name in enumerate(node.input):
            new.input[i] = self.instead.get(name, name)
        self.nodes.append(new)
        for i, name in enumerate(node.output):
            if name in self.activations and name in self.outputs:
                new.output[i] = f"{name}/float"
                self._after(name, new.output[i])
            else:
                self._after(name, name)

    def _after(self, tensor: str, source: str) -> None:
        """Q/DQ behind ``tensor``, which now comes from ``source``."""
        encoding = self.activations.get(tensor)
        if encoding is None:
            return
        zero_point = encoding.zero_point.astype(_storage(encoding.scheme, tensor))
        result = tensor if source != tensor else f"{tensor}/dequantize"
        self._pair(tensor, source, result, encoding.scale, zero_point, None)
        self.instead[tensor] = result

    def _kernel(self, weight: Weight, encoding: Encoding, int8_weights: bool) -> None:
        name = weight.initializer
        if name in self.instead:
            return  # a shared layer: one kernel, one pair
        kernel = numpy_helper.to_array(self.arrays[name])
        integers, scale, axis = on_grid(weight, kernel, encoding)
        zero_point = np.zeros(scale.shape, _storage(encoding.scheme, name))
        if int8_weights:
            self._constant(f"{name}/quantize", integers.astype(zero_point.dtype))
            self._dequantize(name, f"{name}/dequantize", scale, zero_point, axis)
        else:
            self._pair(name, name, f"{name}/dequantize", scale, zero_point, axis)
        self.instead[name] = f"{name}/dequantize"

    def _pair(
        self, name: str, source: str, result: str, scale: np.ndarray, zero_point: np.ndarray, axis: int | None
    ) -> None:
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        inputs = [source, f"{name}/scale", f"{name}/zero_point"]
        quantize = f"{name}/quantize"
        self.nodes.append(helper.make_node("QuantizeLinear", inputs, [quantize], name=quantize, **attributes))
        self._dequantize(name, result, scale, zero_point, axis)

    def _dequantize(self, name: str, result: str, scale: np.ndarray, zero_point: np.ndarray, axis: int | None) -> None:
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        self._constant(f"{name}/scale", scale.astype(np.float32))
        self._constant(f"{name}/zero_point", zero_point)
        inputs = [f"{name}/quantize", f"{name}/scale", f"{name}/zero_point"]
        node = helper.make_node("DequantizeLinear", inputs, [result], name=f"{name}/dequantize", **attributes)
        self.nodes.append(node)

    def _constant(self, name: str, values: np.ndarray) -> None:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def on_grid(weight: Weight, kernel: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Integers, scale and channel axis (None per tensor) of a kernel in ONNX layout.

    Raises:
        QdqError: the scales do not fit the kernel's channels, or the kernel is not ``scale * integer``.
    """
    scale, axis = encoding.scale, weight.axis if encoding.scheme.per_channel else None
    if axis is not None and scale.shape != (kernel.shape[axis],):
        raise QdqError(
            f"Kernel {weight.initializer!r}: expected {kernel.shape[axis]} scales for its output channels (axis "
            f"{axis} of {kernel.shape}), received {scale.size}."
        )
    shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    steps = kernel / (scale if axis is None else scale.reshape(shape))
    integers = np.clip(np.rint(steps), encoding.scheme.qmin, encoding.scheme.qmax)
    error = float(np.abs(steps - integers).max(initial=0))
    if error > _OFF_GRID:
        raise QdqError(
            f"Kernel {weight.initializer!r} is {error:.3g} steps off its own grid: the encodings belong to other "
            f"weights; finalize and split the model again before exporting."
        )
    return integers.astype(np.int32), scale, axis


def _storage(scheme: Scheme, name: str) -> type[np.generic]:
    # Fewer bits fit for a kernel, whose integers are at hand; an activation would be clipped at 127 of 2^(b-1) - 1.
    if scheme.bits > 8 or (scheme.bits < 8 and not scheme.per_channel and not scheme.narrow):
        raise QdqError(f"{name!r}: QuantizeLinear as written here holds 8 bits, received {scheme}.")
    return np.int8 if scheme.signed else np.uint8


def scales_of(model: onnx.ModelProto) -> Mapping[str, float]:
    """Tensor -> scale of each per-tensor activation pair in a Q/DQ model, as the file says it."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in arrays]
    return {n.name.removesuffix("/quantize"): float(numpy_helper.to_array(arrays[n.input[1]])) for n in pairs}
