"""Q/DQ ONNX: the float ONNX with a QuantizeLinear and a DequantizeLinear at each quantized tensor and kernel.

``<tensor>/quantize`` and ``<tensor>/dequantize`` are names of nodes and of what they give; scales and zero points are
initializers ``<tensor>/scale`` and ``<tensor>/zero_point``. A tensor that is also a model output keeps its name behind
the DequantizeLinear, and is ``<tensor>/float`` before it. Tensors of origin ``calibrated`` get none: they lie inside
blocks that were trained without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters.onnx_tidy import rewire_inside

# A kernel is stored as scale * integer in float32; more than this many steps off its grid is another kernel.
_OFF_GRID = 1e-2
INT4_OPSET = 21
_INT4 = {True: onnx.TensorProto.INT4, False: onnx.TensorProto.UINT4}
UNQUANTIZED_READERS = "unquantized_readers"  # subject in Encodings.metadata: tensor -> nodes that read it without Q/DQ
OUTPUT = ":output"  # the model's output, among them; no node is called so


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


def products_of(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes that multiply two computed tensors, as the two products of an attention do."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and constants.isdisjoint(n.input)]


def _gemm_axis(node: onnx.NodeProto, rank: int) -> int:
    return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1


_CHANNEL_AXIS = {
    "Conv": lambda node, rank: 0,  # (out, in / group, *kernel), depthwise included
    "ConvTranspose": lambda node, rank: 1,  # (in, out / group, *kernel)
    "Gemm": _gemm_axis,
    "MatMul": lambda node, rank: rank - 1,
}


def keras_axes(node: onnx.NodeProto, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a kernel's output channels in Keras' layout, as a Scheme has them.

    Args:
        node: the weighted node.
        shape: of its kernel, in ONNX' layout. One input channel a group is a depthwise kernel, (h, w, C, M) in Keras.
    """
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type == "Conv" and groups > 1 and shape[1] == 1:
        return (-2, -1)
    return (-2,) if node.op_type == "ConvTranspose" else (-1,)


def check_axes(node: onnx.NodeProto, shape: tuple[int, ...], encoding: Encoding) -> None:
    """Refuses an Encoding whose channels are on other axes than the output channels of its kernel.

    Args:
        node: the weighted node.
        shape: of its kernel, in ONNX' layout.
        encoding: what is told of the kernel.

    Raises:
        QdqError: names both axes.
    """
    expected = [keras_axes(node, shape)]
    if node.op_type == "Conv" and shape[1] == 1:
        expected = [(-1,), (-2, -1)]  # Conv2D with a group a channel, DepthwiseConv2D of one: the same in ONNX
    axes = encoding.scheme.axis
    if axes and axes not in expected:
        raise QdqError(
            f"Kernel {node.input[1]!r} of {node.name!r} ({node.op_type}): expected its scales on axis "
            f"{' or '.join(map(str, expected))} of Keras' layout, its output channels, received {axes}."
        )


def insert(
    model: onnx.ModelProto, encodings: Encodings, int8_weights: bool = False, clip: bool = False
) -> onnx.ModelProto:
    """A copy of ``model`` with Q/DQ after each tensor and kernel that ``encodings`` (in its names) holds.

    Who reads a tensor without its Q/DQ, by the metadata of ``encodings``, goes on doing so.

    Args:
        model: float ONNX, opset 13 or higher.
        encodings: see ``carry.to_onnx``.
        int8_weights: kernels as integer initializers with DequantizeLinear alone (TensorRT 10 and later; the parsers
            of 8.0 and 8.2 refuse them), else float32 with both.
        clip: whether an activation of fewer integers than its type has gets a Clip between the two nodes, as PyTorch
            writes it (not for TensorRT).

    Raises:
        QdqError: a name that the model lacks, a kernel off its grid, or a scheme of other than 8 bits.
    """
    _check_names(model, encodings)
    return _Inserter(model, encodings, clip).inserted(int8_weights)


def trained(encodings: Encodings) -> dict[str, Encoding]:
    """The activation Encodings that the model was trained with, those that get Q/DQ."""
    return {name: e for name, e in encodings.activations.items() if e.origin != "calibrated"}


def int4_kernels(encodings: Encodings) -> list[str]:
    """The nodes that read a kernel of 4 bits beside float activations: it is stored as INT4, with no QuantizeLinear."""
    return [name for name, e in encodings.weights.items() if name in encodings.float_ops and e.scheme.bits == 4]


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

    def __init__(self, model: onnx.ModelProto, encodings: Encodings, clip: bool) -> None:
        self.model, self.encodings, self.clip = model, encodings, clip
        self.activations = trained(encodings)
        self.raw: Mapping[str, Sequence[str]] = encodings.metadata.get(UNQUANTIZED_READERS, {})
        self.outputs = {info.name for info in model.graph.output}
        self.weights = weights_of(model)
        self.arrays = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.instead: dict[str, str] = {}  # tensor -> what its readers read
        self.unquantized: dict[str, str] = {}  # model output behind Q/DQ -> the tensor before
        self.used = {*self.arrays, *(name for node in model.graph.node for name in (*node.output, node.name))}

    def inserted(self, int8_weights: bool) -> onnx.ModelProto:
        graph = self.model.graph
        for info in graph.input:
            self._after(info.name, info.name)
        for node in graph.node:
            self._copy(node, int8_weights)
        read = {name for node in self.nodes for name in node.input} | self.outputs | _read_inside(graph.node)
        kept = [t for t in graph.initializer if t.name not in self.initializers and t.name in read]
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
        copy.graph.node.extend(self.nodes)
        copy.graph.initializer.extend([*kept, *self.initializers.values()])
        return copy

    def _copy(self, node: onnx.NodeProto, int8_weights: bool) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        weight = self.weights.get(node.name)
        if weight is not None and node.name in self.encodings.weights:
            self._kernel(weight, self.encodings.weights[node.name], int8_weights)
        for i, name in enumerate(node.input):
            raw = node.name in self.raw.get(name, ())
            new.input[i] = (self.unquantized if raw else self.instead).get(name, name)
        rewire_inside(new, self.instead)
        self.nodes.append(new)
        for i, name in enumerate(node.output):
            if name in self.activations and name in self.outputs and OUTPUT not in self.raw.get(name, ()):
                new.output[i] = self.unquantized[name] = self._name(name, "float")
                self._after(name, new.output[i])
            else:
                self._after(name, name)

    def _after(self, tensor: str, source: str) -> None:
        """Q/DQ behind ``tensor``, which now comes from ``source``."""
        encoding = self.activations.get(tensor)
        if encoding is None:
            return
        storage = _storage(encoding.scheme, tensor, self.clip)
        result = tensor if source != tensor else self._name(tensor, "dequantize")
        pair = _Pair(tensor, encoding.scale, encoding.zero_point.astype(storage), None)
        integers = self._quantize(pair, source)
        if self.clip:
            integers = self._clipped(pair, encoding.scheme, integers)
        self._dequantize(pair, integers, result)
        self.instead[tensor] = result

    def _kernel(self, weight: Weight, encoding: Encoding, int8_weights: bool) -> None:
        name = weight.initializer
        if name in self.instead:
            return  # a shared layer: one kernel, one pair
        kernel = numpy_helper.to_array(self.arrays[name])
        integers, scale, axis = on_grid(weight, kernel, encoding)
        alone = weight.node in int4_kernels(self.encodings)
        storage = _int4(encoding.scheme, self.model) if alone else _storage(encoding.scheme, name, True)
        pair = _Pair(name, scale, encoding.zero_point.astype(storage), axis)
        if int8_weights or alone:
            source = self._constant(self._name(name, "quantize"), integers.astype(storage))
        else:
            source = self._quantize(pair, name)
        self.instead[name] = self._dequantize(pair, source, self._name(name, "dequantize"))

    def _quantize(self, pair: _Pair, source: str) -> str:
        return self._node("QuantizeLinear", pair, source, self._name(pair.name, "quantize"))

    def _dequantize(self, pair: _Pair, source: str, result: str) -> str:
        return self._node("DequantizeLinear", pair, source, result)

    def _node(self, kind: str, pair: _Pair, source: str, result: str) -> str:
        attributes: dict[str, Any] = {} if pair.axis is None else {"axis": pair.axis}
        inputs = [
            source,
            self._constant(self._name(pair.name, "scale"), pair.scale.astype(np.float32)),
            self._constant(self._name(pair.name, "zero_point"), pair.zero_point),
        ]
        name = self._name(pair.name, kind.removesuffix("Linear").lower())
        self.nodes.append(helper.make_node(kind, inputs, [result], name=name, **attributes))
        return result

    def _clipped(self, pair: _Pair, scheme: Scheme, source: str) -> str:
        """A Clip to the integers of ``scheme``, where its type has more."""
        info = np.iinfo(pair.zero_point.dtype)
        if (scheme.qmin, scheme.qmax) == (info.min, info.max):
            return source
        bounds = {"min": scheme.qmin, "max": scheme.qmax}
        names = [
            self._constant(self._name(pair.name, f"clip_{key}"), np.asarray(value, info.dtype))
            for key, value in bounds.items()
        ]
        result = self._name(pair.name, "clip")
        self.nodes.append(helper.make_node("Clip", [source, *names], [result], name=result))
        return result

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name

    def _name(self, tensor: str, word: str) -> str:
        """``tensor/word``, or the like where the model has that name already."""
        name = f"{tensor}/{word}"
        while name in self.used:
            name += "_"
        return name


@dataclass(frozen=True)
class _Pair:
    """What both nodes of one pair say of the tensor ``name``."""

    name: str
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None


def _read_inside(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """What graphs inside the nodes read."""
    graphs = [g for node in nodes for a in node.attribute for g in (a.g, *a.graphs)]
    inner = [node for graph in graphs for node in graph.node]
    return {name for node in inner for name in node.input} | (_read_inside(inner) if inner else set())


def on_grid(weight: Weight, kernel: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Integers, scale and channel axis (None per tensor) of a kernel in ONNX layout.

    Raises:
        QdqError: the scales do not fit the kernel's channels, or the kernel is not ``scale * integer``.
    """
    scale, zero_point, axis = _spread(weight, kernel, encoding)
    steps = kernel / scale + zero_point
    integers = np.clip(np.rint(steps), encoding.scheme.qmin, encoding.scheme.qmax)
    error = float(np.abs(steps - integers).max(initial=0))
    if not error <= _OFF_GRID:
        raise QdqError(
            f"Kernel {weight.initializer!r} is {error:.3g} steps off its own grid: the encodings belong to other "
            f"weights; finalize and split the model again before exporting."
        )
    return integers.astype(np.int32), encoding.scale, axis


def rounded(weight: Weight, kernel: np.ndarray, encoding: Encoding) -> np.ndarray:
    """A kernel in ONNX layout on its grid, float32.

    Raises:
        QdqError: the scales do not fit the kernel's channels.
    """
    scale, zero_point, _ = _spread(weight, kernel, encoding)
    integers = np.clip(np.rint(kernel / scale) + zero_point, encoding.scheme.qmin, encoding.scheme.qmax)
    return ((integers - zero_point) * scale).astype(np.float32)


def _spread(weight: Weight, kernel: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Scale and zero point shaped to go with the kernel, and the channel axis."""
    axis = weight.axis if encoding.scheme.per_channel else None
    if not np.isfinite(kernel).all():
        raise QdqError(
            f"Kernel {weight.initializer!r} of {weight.node!r} holds infinite values or NaN, which no integers can "
            f"stand for; the training that made it diverged, or the file is damaged."
        )
    if axis is not None and encoding.scale.shape != (kernel.shape[axis],):
        raise QdqError(
            f"Kernel {weight.initializer!r}: expected {kernel.shape[axis]} scales for its output channels (axis "
            f"{axis} of {kernel.shape}), received {encoding.scale.size}."
        )
    shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    return encoding.scale.reshape(shape), encoding.zero_point.reshape(shape), axis


def _storage(scheme: Scheme, name: str, fewer: bool) -> type[np.generic]:
    """The type of the integers; ``fewer`` than 8 bits are allowed where nothing else would let more of them through."""
    if scheme.bits > 8 or (scheme.bits < 8 and not fewer):
        raise QdqError(f"{name!r}: QuantizeLinear as written here holds 8 bits, received {scheme}.")
    return np.int8 if scheme.signed else np.uint8


def _int4(scheme: Scheme, model: onnx.ModelProto) -> np.dtype[Any]:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < INT4_OPSET:
        raise QdqError(
            f"A kernel of 4 bits beside float activations is an INT4 tensor, which ONNX has from opset {INT4_OPSET} "
            f"on; received opset {opset}. Set export_config.opset={INT4_OPSET} (tfqat.export(opset={INT4_OPSET}))."
        )
    return np.dtype(helper.tensor_dtype_to_np_dtype(_INT4[scheme.signed]))


def scales_of(model: onnx.ModelProto) -> Mapping[str, float]:
    """Tensor -> scale of each per-tensor activation pair in a Q/DQ model, as the file says it."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in arrays]
    return {
        n.name.rstrip("_").removesuffix("/quantize"): float(numpy_helper.to_array(arrays[n.input[1]])) for n in pairs
    }
