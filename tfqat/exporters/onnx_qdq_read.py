"""Q/DQ ONNX from anywhere, read: the float model below it, and what its Q/DQ nodes say as Encodings.

Each QuantizeLinear and DequantizeLinear is taken away. What stood between the two of a pair (a Transpose, a MaxPool of
integers) then runs on floats, which gives the same values. Constants behind a pair become ``scale * (integer - zero
point)``, so that the float model holds the weights that the Q/DQ model computes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.listing import some
from tfqat.exporters.onnx_file import opset_of
from tfqat.exporters.onnx_grid import (
    INT4,
    Grid,
    QdqReadError,
    bounds_of,
    grid_of,
    is_dequantize,
    is_integer_type,
    is_quantize,
)
from tfqat.exporters.onnx_qdq import OUTPUT, UNQUANTIZED_READERS, Weight, keras_axes, weights_of
from tfqat.exporters.onnx_tidy import FOLDABLE, computed, name_nodes, names_read, rewire, tensor_names, tidy

TARGET = "imported"  # Encodings.target: nobody knows what the model was trained for

# They move values, so that they run on integers as well as on floats.
_MOVES = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Flatten MaxPool Slice Split Gather DepthToSpace SpaceToDepth Tile "
    "Expand Concat".split()
)
_ON_INTEGERS = frozenset(
    "QLinearConv QLinearMatMul ConvInteger MatMulInteger QLinearAdd QGemm QLinearGlobalAveragePool QLinearConcat "
    "QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearAveragePool".split()
)
_SUFFIXES = ("/quantize", "_quantized", "_quant", "_QuantizeLinear_Output")


@dataclass(frozen=True)
class QdqModel:
    """What a Q/DQ ONNX says.

    Attributes:
        model: the float ONNX, without Q/DQ; its constants are as the Q/DQ model uses them.
        encodings: in names of ``model``. Their metadata list who reads a tensor without its Q/DQ.
        notes: what the two do not hold.
    """

    model: onnx.ModelProto
    encodings: Encodings
    notes: tuple[str, ...]


def has_pairs(model: onnx.ModelProto) -> bool:
    """Whether a model holds QuantizeLinear or DequantizeLinear nodes, functions and graphs inside it included."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        if is_quantize(node) or is_dequantize(node):
            return True
        nodes += [
            inner for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) for inner in graph.node
        ]
    return False


def read(model: onnx.ModelProto) -> QdqModel:
    """Takes the Q/DQ nodes out of ``model``, which is not changed.

    Raises:
        QdqReadError: half a pair, two halves that differ, two scales for one tensor, or numbers that no Encoding
            holds; names the node and the tensor.
    """
    return _Reader(tidy(model)).read()


class _Reader:
    """The state of one reading: what each tensor of the Q/DQ model is in the float one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.opset = model, opset_of(model)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.origins = {name: name for name in self.constants}  # constant -> the initializer whose values it holds
        self.grids: dict[str, Grid] = {}  # constant -> that of the pair it went through
        self.alias: dict[str, str] = {}  # tensor that is gone -> the one that has its place
        self.integers: dict[str, Grid] = {}  # tensor on integers -> its grid
        self.found: dict[str, Grid] = {}  # tensor that gets an Encoding -> its grid
        self.raw: dict[str, list[str]] = {}  # tensor -> nodes that read it as it is, not behind a pair
        self.lost: list[str] = []  # nodes that compute something new of a constant behind a pair
        self.nodes: list[onnx.NodeProto] = []
        self.ranks = _ranks(model)

    def read(self) -> QdqModel:
        outputs = [info.name for info in self.model.graph.output]
        for node in self.model.graph.node:
            self._take(node)
        self._check_outputs(outputs)
        for name in outputs:
            if name in self.found:
                self.raw.setdefault(name, []).append(OUTPUT)
        self._restore_outputs(outputs)
        names = self._rename_constants()
        clean = self._clean(names)
        weights = weights_of(clean)
        grids = {names.get(name, name): grid for name, grid in self.grids.items()}
        return QdqModel(clean, self._encodings(clean, weights, grids), self._notes(clean, weights, grids))

    # One node after the other.

    def _take(self, node: onnx.NodeProto) -> None:
        if node.op_type in _ON_INTEGERS:
            raise QdqReadError(
                f"Node {node.name!r} ({node.op_type}) computes on integers (ONNX' operator-oriented form); export with "
                f"QuantizeLinear and DequantizeLinear around float nodes (QDQ format)."
            )
        if is_quantize(node):
            self._quantize(node)
        elif is_dequantize(node):
            self._dequantize(node)
        elif node.op_type in FOLDABLE and node.input and all(name in self.constants for name in node.input if name):
            self._fold(node)
        elif any(name in self.integers for name in node.input):
            self._move(node)
        else:
            self._keep(node)

    def _quantize(self, node: onnx.NodeProto) -> None:
        source, result = node.input[0], node.output[0]
        grid = grid_of(node, self.constants, self._rank(source))
        if source in self.integers:
            raise QdqReadError(f"QuantizeLinear {node.name!r} reads {source!r}, which holds integers already.")
        if source in self.constants:
            if not np.isfinite(self.constants[source]).all():
                raise QdqReadError(
                    f"Constant {source!r}, which {node.name!r} quantizes, holds infinite values or NaN; the training "
                    f"that made it diverged, or the file is damaged."
                )
            self._constant(result, grid.quantize(self.constants[source]), grid, self.origins.get(source))
            return
        grid = grid.per_tensor()
        if grid.dtype == "int32":
            raise QdqReadError(f"Tensor {source!r} is quantized to int32; expected 8 or 16 bits.")
        if grid.axis is not None:
            raise QdqReadError(
                f"Tensor {source!r} has {grid.scale.size} scales, one a channel; activations have one scale here and "
                f"in TensorRT. Quantize activations per tensor."
            )
        root = self._root(source)
        self._tell(root, grid, node)
        self.alias[result] = root
        self.integers[result] = grid

    def _dequantize(self, node: onnx.NodeProto) -> None:
        source, result = node.input[0], node.output[0]
        if source in self.constants:
            values = self.constants[source]
            if not is_integer_type(values.dtype.name):
                raise QdqReadError(f"DequantizeLinear {node.name!r} reads {source!r}, which holds {values.dtype}.")
            grid = grid_of(node, self.constants, values.ndim, values.dtype.name)
            before = self.grids.get(source)
            if before is not None:
                self._check_pair(node, before, grid)
                grid = before
            self._constant(result, grid.dequantize(values), grid, self.origins.get(source))
            return
        if source not in self.integers:
            raise QdqReadError(
                f"DequantizeLinear {node.name!r} reads {source!r}, which comes from no QuantizeLinear: the model takes "
                f"or computes integers there. Give the model float inputs, and a QuantizeLinear of its own to each."
            )
        known = self.integers[source]
        self._check_pair(node, known, grid_of(node, self.constants, self._rank(source), known.dtype).per_tensor())
        self.alias[result] = self._root(source)

    def _check_pair(self, node: onnx.NodeProto, one: Grid, other: Grid) -> None:
        """Refuses a DequantizeLinear that is not the inverse of its QuantizeLinear."""
        if not one.same(other.clipped(one.low, one.high)):
            raise QdqReadError(
                f"DequantizeLinear {node.name!r} is not the inverse of the QuantizeLinear that it reads from "
                f"({node.input[0]!r}): {other.unlike(one)}. Their scale, zero point, type and axis must be equal."
            )

    def _tell(self, tensor: str, grid: Grid, node: onnx.NodeProto) -> None:
        known = self.found.setdefault(tensor, grid)
        if not known.same(grid):
            raise QdqReadError(
                f"Tensor {tensor!r} is quantized twice, differently: {known}, and by {node.name!r} {grid}. One tensor "
                f"has one scale in a cache and in encodings; let both quantizers share their range."
            )

    def _fold(self, node: onnx.NodeProto) -> None:
        given = {name: self.constants[name] for name in node.input if name}
        value = computed(node, given, self.opset)
        grid = self.grids.get(node.input[0])
        kept = node.op_type == "Identity" or (node.op_type == "Cast" and value.dtype == given[node.input[0]].dtype)
        origin = self.origins.get(node.input[0]) if kept else None
        if grid is not None and node.op_type == "Clip" and value.dtype.kind in "iu":
            grid = grid.clipped(*_bounds(node, self.constants, value.dtype))
        elif grid is not None and node.op_type in _MOVES | {"Cast"}:
            grid = _moved(node, grid, given[node.input[0]].shape, value.shape)
        elif grid is not None:
            self.lost.append(node.name)
            grid = None
        self._constant(node.output[0], value, grid, origin)

    def _constant(self, name: str, value: np.ndarray, grid: Grid | None, origin: str | None) -> None:
        self.constants[name] = value
        if grid is not None:
            self.grids[name] = grid
        if origin is not None:
            self.origins[name] = origin

    def _move(self, node: onnx.NodeProto) -> None:
        """A node between the two of a pair."""
        given = [name for name in node.input if name in self.integers]
        grid = self.integers[given[0]]
        if node.op_type == "Clip":
            clipped = grid.clipped(*_bounds(node, self.constants, np.dtype(grid.dtype)))
            root = self._root(given[0])
            self.alias[node.output[0]], self.integers[node.output[0]] = root, clipped
            self.found[root] = clipped
            return
        moved = node.input[:1] if node.op_type != "Concat" else node.input
        if node.op_type not in _MOVES or not all(name in self.integers for name in moved):
            raise QdqReadError(
                f"Node {node.name!r} ({node.op_type}) computes on the integers of {given[0]!r}, between a "
                f"QuantizeLinear and a DequantizeLinear; only nodes that move values may stand there."
            )
        if not all(self.integers[name].same(grid) for name in moved):
            raise QdqReadError(f"Node {node.name!r} joins integers of different scales: {', '.join(moved)}.")
        self._append(node)
        for name in node.output:
            self.integers[name] = grid
            self.found[name] = grid

    def _keep(self, node: onnx.NodeProto) -> None:
        for name in dict.fromkeys(node.input):
            if name not in self.alias:
                self.raw.setdefault(name, []).append(node.name)
        self._append(node)

    def _append(self, node: onnx.NodeProto) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        rewire([new], {name: self._root(name) for name in names_read([new]) if name in self.alias})
        self.nodes.append(new)

    def _root(self, name: str) -> str:
        while name in self.alias:
            name = self.alias[name]
        return name

    def _rank(self, name: str) -> int | None:
        return self.constants[name].ndim if name in self.constants else self.ranks.get(name)

    # The float model.

    def _check_outputs(self, outputs: list[str]) -> None:
        lone = [name for name in outputs if name in self.integers]
        if lone:
            raise QdqReadError(
                f"The model's outputs {lone} are integers: a QuantizeLinear without a DequantizeLinear. End the model "
                f"with the DequantizeLinear."
            )

    def _restore_outputs(self, outputs: list[str]) -> None:
        """Gives each model output its name back where a DequantizeLinear gave it."""
        inputs = {info.name for info in self.model.graph.input}
        for name in outputs:
            if name in self.constants:
                raise QdqReadError(f"The model's output {name!r} is a constant.")
            root = self._root(name)
            if root == name:
                continue
            if root in inputs or root in outputs:
                self.nodes.append(helper.make_node("Identity", [root], [name], name=name))
                del self.alias[name]
                self.found[name] = self.found[root]
            else:
                self._rename_tensor(root, name)

    def _rename_tensor(self, old: str, new: str) -> None:
        for node in self.nodes:
            for i, name in enumerate(node.output):
                node.output[i] = new if name == old else name
        rewire(self.nodes, {old: new})
        del self.alias[new]
        if old in self.found:
            self.found[new] = self.found.pop(old)
        if old in self.raw:
            self.raw[new] = self.raw.pop(old)
        self.alias[old] = new

    def _rename_constants(self) -> dict[str, str]:
        """Constant behind a pair -> the name of the initializer before it, where that is free."""
        read = names_read(self.nodes)
        taken = {name for name in read if name not in self.grids} | set(tensor_names(self.model))
        names: dict[str, str] = {}
        for name in self.grids:
            origin = self.origins.get(name)
            if name not in read or origin is None:
                continue
            wanted = _without_suffix(origin)
            if wanted not in taken:
                names[name] = wanted
                taken.add(wanted)
        return names

    def _clean(self, names: Mapping[str, str]) -> onnx.ModelProto:
        rewire(self.nodes, names)
        read = names_read(self.nodes)
        clean = onnx.ModelProto()
        clean.CopyFrom(self.model)
        graph = clean.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:], graph.quantization_annotation[:]
        graph.node.extend(self.nodes)
        name_nodes(graph.node)
        held = {names.get(name, name): value for name, value in self.constants.items() if name not in names.values()}
        first = dict.fromkeys(name for node in self.nodes for name in node.input)
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(held[name]).reshape(held[name].shape), name)
            for name in [*first, *sorted(read - set(first))]
            if name in held
        )
        return clean

    # What was found.

    def _encodings(self, clean: onnx.ModelProto, weights: Mapping[str, Weight], grids: Mapping[str, Grid]) -> Encodings:
        activations = {name: self.found[name].encoding() for name in tensor_names(clean) if name in self.found}
        arrays = {tensor.name: tensor for tensor in clean.graph.initializer}
        nodes = {node.name: node for node in clean.graph.node}
        kernels: dict[str, Encoding] = {}
        floats: dict[str, str] = {}
        for name, weight in weights.items():
            grid = grids.get(weight.initializer)
            if grid is not None:
                kernel = numpy_helper.to_array(arrays[weight.initializer])
                kernels[name] = kernel_encoding(nodes[name], weight, kernel, grid)
            if grid is None:
                floats[name] = "its kernel has no Q/DQ"
            elif grid.dtype in INT4:
                floats[name] = "its kernel is INT4"
            elif nodes[name].input[0] not in activations:
                floats[name] = "what it reads has no Q/DQ"
        raw = {name: self.raw[name] for name in activations if self.raw.get(name)}
        return Encodings(TARGET, activations, kernels, floats, {UNQUANTIZED_READERS: raw} if raw else {})

    def _notes(
        self, clean: onnx.ModelProto, weights: Mapping[str, Weight], grids: Mapping[str, Grid]
    ) -> tuple[str, ...]:
        kernels = {weight.initializer for weight in weights.values()}
        others = [t.name for t in clean.graph.initializer if t.name in grids and t.name not in kernels]
        biases = [name for name in others if grids[name].dtype == "int32"]
        rest = [name for name in others if name not in biases]
        told = {
            "nodes compute a constant of a quantized one, which has no scale then": self.lost,
            "int32 biases are float32 now, with the same values": biases,
            "quantized constants that are no kernel keep their rounded values, but no scale": rest,
        }
        return tuple(f"{len(names)} {text}: {some(names)}" for text, names in told.items() if names)


def kernel_encoding(node: onnx.NodeProto, weight: Weight, kernel: np.ndarray, grid: Grid) -> Encoding:
    """The Encoding of a kernel in ONNX layout from its Grid; narrow where no weight has the lowest integer.

    Raises:
        QdqReadError: its scales are not those of its output channels.
    """
    if grid.scale.size == 1 and kernel.shape[weight.axis] != 1:
        grid = grid.per_tensor()
    if grid.axis is not None and grid.axis != weight.axis:
        raise QdqReadError(
            f"Kernel {weight.initializer!r} of {node.name!r} ({node.op_type}) has its scales on axis {grid.axis}, "
            f"expected axis {weight.axis}, its output channels, or one scale for the whole kernel."
        )
    if grid.axis is not None and grid.scale.size != kernel.shape[grid.axis]:
        raise QdqReadError(
            f"Kernel {weight.initializer!r} has {kernel.shape[grid.axis]} output channels, but {grid.scale.size} "
            f"scales."
        )
    if grid.dtype == "int32":
        raise QdqReadError(f"Kernel {weight.initializer!r} of {node.name!r} is int32; expected 8 or 16 bits.")
    lowest = int(grid.quantize(kernel).min(initial=grid.high))
    axes = () if grid.axis is None else keras_axes(node, kernel.shape)
    return grid.encoding(axes, narrow=lowest > bounds_of(grid.dtype)[0])


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    infos = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {
        info.name: len(info.type.tensor_type.shape.dim) for info in infos if info.type.tensor_type.HasField("shape")
    }


def _bounds(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], dtype: np.dtype) -> tuple[int, int]:
    """The bounds of a Clip of integers."""
    info = np.iinfo(dtype)
    given = [*node.input[1:], "", ""][:2]
    if any(name and name not in constants for name in given):
        raise QdqReadError(f"Clip {node.name!r} between a QuantizeLinear and a DequantizeLinear has computed bounds.")
    low, high = (int(constants[name]) if name else None for name in given)
    return info.min if low is None else low, info.max if high is None else high


def _moved(node: onnx.NodeProto, grid: Grid, before: tuple[int, ...], after: tuple[int, ...]) -> Grid:
    """The grid of a constant behind a node that moves its values.

    Raises:
        QdqReadError: the channels do not stay on one axis.
    """
    if grid.axis is None or (before == after and node.op_type != "Transpose"):
        return grid
    if node.op_type == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(len(before)))[::-1])
        return grid.moved(order.index(grid.axis))
    wanted = int(np.prod(before[: grid.axis])), before[grid.axis]
    for axis, size in enumerate(after):
        if (int(np.prod(after[:axis])), size) == wanted:
            return grid.moved(axis)
    raise QdqReadError(f"Node {node.name!r} ({node.op_type}) breaks up the channels of a kernel that has a scale each.")


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name
