"""Tidy ONNX: a model from anywhere in the form that the readers here expect.

Constants are initializers, nodes that only reshape or compute constants are gone, and each node has a name of its own.
What the model computes, its tensors' names, its inputs and its outputs stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

from tfqat.exporters.onnx_file import opset_of

# Nodes that are computed where all they read is constant: what exporters put between a weight and its reader.
FOLDABLE = frozenset(
    "Identity Cast Transpose Reshape Squeeze Unsqueeze Flatten Mul Div Add Sub Neg Abs Sqrt Concat Clip".split()
)
_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "value": numpy_helper.to_array,
    "value_float": np.float32,
    "value_int": np.int64,
    "value_floats": lambda values: np.asarray(values, np.float32),
    "value_ints": lambda values: np.asarray(values, np.int64),
}


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A tidy copy of ``model``, but for nodes that quantize: see ``onnx_qdq_read``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    graph = copy.graph
    constants = _constants(graph)
    known = set(constants)
    nodes = [node for node in graph.node if not _is_constant(node)]
    kept, folded = _folded(nodes, constants, opset_of(copy))
    alias = {name: source for name, source in folded.items() if source is not None}
    outputs = {info.name for info in graph.output}
    kept += [helper.make_node("Identity", [source], [name]) for name, source in alias.items() if name in outputs]
    rewire(kept, alias)
    own_inputs = [info for info in graph.input if info.name not in known]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(kept)
    graph.input.extend(own_inputs)
    read = names_read(kept) | outputs
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in read)
    name_nodes(graph.node)
    return copy


def name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Gives a name of its own to each node that has none, or that of an earlier one: that of its first output."""
    used: set[str] = set()
    for node in nodes:
        wanted = node.name or next((name for name in node.output if name), node.op_type)
        name, number = wanted, 1
        while name in used:
            name, number = f"{wanted}_{number}", number + 1
        node.name = name
        used.add(name)


def rewire(nodes: Iterable[onnx.NodeProto], alias: Mapping[str, str]) -> None:
    """Makes the nodes, and those of graphs inside them, read ``alias[name]`` in place of ``name``."""
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        rewire_inside(node, alias)


def rewire_inside(node: onnx.NodeProto, alias: Mapping[str, str]) -> None:
    """Makes the nodes of graphs inside ``node`` read ``alias[name]`` in place of ``name``."""
    for inner in _inner_graphs(node):
        rewire(inner.node, alias)


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """What the nodes, and those of graphs inside them, read; what graphs inside them give counts as read."""
    return {name for node in nodes for name in (*node.input, *names_read_inside(node))}


def names_read_inside(node: onnx.NodeProto) -> list[str]:
    """What graphs inside ``node`` (the body of a Loop, say) read and give, in order; names of their own included."""
    found = dict[str, None]()
    for graph in _inner_graphs(node):
        for inner in graph.node:
            found.update(dict.fromkeys((*inner.input, *names_read_inside(inner))))
        found.update(dict.fromkeys(info.name for info in graph.output))
    return list(found)


def _inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]


def computed(node: onnx.NodeProto, given: Mapping[str, np.ndarray], opset: int) -> np.ndarray:
    """What a node of one output gives for constant inputs."""
    inputs = [helper.make_tensor_value_info(name, _type_of(value), value.shape) for name, value in given.items()]
    output = helper.make_empty_tensor_value_info(node.output[0])
    graph = helper.make_graph([node], "node", inputs, [output])
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    (value,) = ReferenceEvaluator(single).run(None, dict(given))
    return np.asarray(value)


def tensor_names(model: onnx.ModelProto) -> list[str]:
    """The tensors that are computed or fed, in order; constants are none."""
    names = [info.name for info in model.graph.input]
    return names + [name for node in model.graph.node for name in node.output if name]


def readers_of(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    """Tensor -> the nodes that read it, each once."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def _type_of(value: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(value.dtype)


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and any(a.name in _VALUES for a in node.attribute)


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers, and the values of Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if _is_constant(node):
            attribute = next(a for a in node.attribute if a.name in _VALUES)
            value = _VALUES[attribute.name](helper.get_attribute_value(attribute))
            found[node.output[0]] = numpy_helper.from_array(np.asarray(value), node.output[0])
    return found


def _folded(
    nodes: Iterable[onnx.NodeProto], constants: dict[str, onnx.TensorProto], opset: int
) -> tuple[list[onnx.NodeProto], dict[str, str | None]]:
    """The nodes that are left; and the outputs of the others: a copy of a constant (which), or a new one (None).

    New constants are added to ``constants``.
    """
    kept, folded = [], dict[str, str | None]()
    for node in nodes:
        inputs = [folded.get(name) or name for name in node.input]
        if node.op_type not in FOLDABLE or not all(name in constants for name in inputs if name) or not inputs:
            kept.append(node)
        elif node.op_type == "Identity":
            folded[node.output[0]] = inputs[0]
        else:
            pairs = zip(node.input, inputs, strict=True)
            given = {name: numpy_helper.to_array(constants[source]) for name, source in pairs if name}
            value = computed(node, given, opset)
            constants[node.output[0]] = numpy_helper.from_array(np.asarray(value, order="C"), node.output[0])
            folded[node.output[0]] = None
    return kept, folded
