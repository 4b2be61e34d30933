"""Carry: ranges passed on to the tensors that share them.

:func:`to_onnx` tells the Encodings of a Keras model in tensors of its ONNX, those that the converter made included;
:func:`spread` does the like within an ONNX from anywhere.

A tensor that a Transpose, Reshape or the like makes of an encoded one has the same range; so has the tensor that such
a node reads where the converter put it inside one op (GlobalAveragePool and Squeeze in place of one Keras pooling).
Tensors inside an activation of several nodes (the Sigmoid in SiLU) get theirs by running those nodes over the range of
what they read; such a range was never trained against, so its origin is ``calibrated``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tfqat.core.encoding import Encoding, Encodings, encoding_of_values
from tfqat.exporters.onnx_qdq import weights_of

if TYPE_CHECKING:
    from tfqat.exporters.onnx_names import Named

# Nodes whose output holds exactly the values of their input.
_SAME_VALUES = frozenset(
    "Transpose Reshape Squeeze Unsqueeze Flatten Identity DepthToSpace SpaceToDepth Dropout".split()
)
# Nodes whose output holds values of their input only, some of them perhaps not, or zeros.
_SUBSET = _SAME_VALUES | frozenset("MaxPool GlobalMaxPool ReduceMax Slice Split Tile Expand Gather".split())
_ELEMENTWISE = frozenset(
    "Sigmoid Mul Add Sub Div Neg Erf Tanh Clip Softplus HardSigmoid HardSwish Relu LeakyRelu Elu Exp Log Abs Min Max "
    "Reciprocal Sqrt Pow Selu Celu Softsign Gelu Mish Identity".split()
)
_GRID = 4096


def to_onnx(named: Named, encodings: Encodings) -> Encodings:
    """``encodings`` (keyed by tensors of the Keras view) keyed by tensors of ``named.model``, in its order, carried on.

    Weights keep their keys: a weighted node has its op's name. Float ops become the nodes that compute them.
    """
    model = named.model
    known = {named.tensors[name]: encoding for name, encoding in encodings.activations.items() if name in named.tensors}
    keras_tensors = frozenset(named.tensors.values())
    known = _backward(model, known, keras_tensors)
    known = _forward(model, known, keras_tensors)
    known |= inner_ranges(model, known)
    order = [*(info.name for info in model.graph.input), *(name for node in model.graph.node for name in node.output)]
    float_nodes = {node: reason for op, reason in encodings.float_ops.items() for node in named.nodes.get(op, ())}
    merged = _merged(named, encodings)
    return replace(
        encodings,
        activations={n: known[n] for n in order if n in known},
        weights={op: encoding for op, encoding in encodings.weights.items() if op not in merged},
        float_ops=float_nodes,
    )


def spread(model: onnx.ModelProto, known: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """``known`` and the Encodings of tensors that share a range with one of them, in the order of ``model``.

    Forward, a node that gives values of its input only has its range, and a Concat that of its inputs where they
    agree. Backward, so has what such nodes read, if they all agree and nothing else reads it: rounding before a
    MaxPool, a Concat or a Reshape is rounding behind it. The new ones are of origin ``shared``.
    """
    found = dict(known)
    sharing = _Sharing(model)
    while True:
        before = len(found)
        for node in model.graph.node:
            sharing.forward(node, found)
        for node in reversed(model.graph.node):
            sharing.backward(node, found)
        if len(found) == before:
            break
    order = [*(info.name for info in model.graph.input), *(name for node in model.graph.node for name in node.output)]
    return {name: found[name] for name in order if name in found}


class _Sharing:
    """Which tensors of one model share a range."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {info.name for info in model.graph.output}
        self.readers = _readers(model)

    def sources(self, node: onnx.NodeProto) -> list[str]:
        """The tensors with whose range the node's outputs share; none for other nodes."""
        if node.op_type == "Concat":
            return [name for name in node.input if name not in self.constants]
        return list(node.input[:1]) if node.input and shares_range(node, self.constants) else []

    def forward(self, node: onnx.NodeProto, found: dict[str, Encoding]) -> None:
        sources = self.sources(node)
        agreed = self._agreed(sources, found) if len(sources) == len(node.input) or node.op_type != "Concat" else None
        if agreed is not None:
            for name in _results(node):
                found.setdefault(name, _shared(agreed))

    def backward(self, node: onnx.NodeProto, found: dict[str, Encoding]) -> None:
        for source in self.sources(node):
            if source in found or source in self.constants or source in self.outputs:
                continue
            readers = self.readers[source]
            if all(source in self.sources(reader) for reader in readers):
                agreed = self._agreed([name for reader in readers for name in _results(reader)], found)
                if agreed is not None:
                    found[source] = _shared(agreed)

    def _agreed(self, names: Iterable[str], found: Mapping[str, Encoding]) -> Encoding | None:
        """The Encoding that all of the tensors have; None where one has none, or another."""
        encodings = [found.get(name) for name in names]
        first = encodings[0] if encodings else None
        if first is None or any(e is None or not _same_range(e, first) for e in encodings):
            return None
        return first


def _results(node: onnx.NodeProto) -> list[str]:
    """What a node makes of its values: not the indices of a MaxPool, nor the mask of a Dropout."""
    return [name for name in node.output if name] if node.op_type == "Split" else list(node.output[:1])


def _same_range(one: Encoding, other: Encoding) -> bool:
    return replace(one, origin="shared") == replace(other, origin="shared")


def _merged(named: Named, encodings: Encodings) -> set[str]:
    """Weighted ops whose node the converter merged with that of another call of the same layer on the same tensor."""
    nodes = weights_of(named.model)
    layers = {_layer(op): encoding for op, encoding in encodings.weights.items() if op in nodes}
    return {op for op, told in encodings.weights.items() if op not in nodes and layers.get(_layer(op)) == told}


def _layer(op: str) -> str:
    """The name without the number of the call."""
    name, _, number = op.rpartition("/")
    return name if number.isdecimal() else op


def shares_range(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether the node's output has the range of its first input, whatever the values."""
    rule = _CONDITIONS.get(node.op_type)
    return node.op_type in _SUBSET or (rule is not None and rule(node, constants))


def inner_ranges(model: onnx.ModelProto, known: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """Encodings of the tensors without one that lie between encoded ones, on elementwise nodes of one input."""
    found: dict[str, Encoding] = {}
    scalars = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if _count(t) == 1}
    readers = _readers(model)
    for start, encoding in known.items():
        values = {start: np.linspace(encoding.min, encoding.max, _GRID, dtype=np.float32)}
        nodes = _elementwise_after(start, known, scalars, readers)
        for node in nodes:
            values.update(_computed(node, values, scalars))
        for name in _leading_to(nodes, known):
            # Some of the range may be outside of what a Sqrt or a Log takes; such values never came.
            finite = values[name][np.isfinite(values[name])]
            found[name] = encoding_of_values(encoding.scheme, finite if finite.size else np.zeros(1), "calibrated")
    return found


def _backward(
    model: onnx.ModelProto, known: Mapping[str, Encoding], keras_tensors: frozenset[str]
) -> dict[str, Encoding]:
    """Adds what the converter put in front of an encoded tensor within the same op."""
    found, readers = dict(known), _readers(model)
    for node in reversed(model.graph.node):
        source = node.input[0] if node.input else ""
        # Read by anything else, it is inside another op as well, which was trained without a rounding there.
        alone = all(reader.op_type in _SAME_VALUES for reader in readers.get(source, ()))
        inner = source not in keras_tensors and node.op_type in _SAME_VALUES and alone
        if inner and source not in found and found.get(node.output[0]) is not None:
            found[source] = _shared(found[node.output[0]])
    constants = {tensor.name for tensor in model.graph.initializer}
    return {name: encoding for name, encoding in found.items() if name not in constants}


def _forward(
    model: onnx.ModelProto, known: Mapping[str, Encoding], keras_tensors: frozenset[str]
) -> dict[str, Encoding]:
    """Adds what the converter made of an encoded tensor; Keras' own tensors have theirs, or none on purpose."""
    found = dict(known)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.input and node.input[0] in found and shares_range(node, constants):
            for name in node.output:
                if name not in found and name not in keras_tensors:
                    found[name] = _shared(found[node.input[0]])
    return found


def _shared(encoding: Encoding) -> Encoding:
    return encoding if encoding.origin == "calibrated" else replace(encoding, origin="shared")


def _pads_with_zero(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    mode = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "mode"), b"constant")
    if mode != b"constant" or len(node.input) < 3 or not node.input[2]:
        return True
    value = constants.get(node.input[2])
    return value is not None and not numpy_helper.to_array(value).any()


def _is_nearest(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    mode = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "mode"), b"nearest")
    return mode == b"nearest"


_CONDITIONS: Mapping[str, Callable[[onnx.NodeProto, Mapping[str, onnx.TensorProto]], bool]] = {
    "Pad": _pads_with_zero,
    "Resize": _is_nearest,
}


def _elementwise_after(
    start: str,
    known: Mapping[str, Encoding],
    scalars: Mapping[str, np.ndarray],
    readers: Mapping[str, list[onnx.NodeProto]],
) -> list[onnx.NodeProto]:
    """The nodes that compute, from ``start`` and scalars alone, up to the next encoded tensors; producers first."""
    reached, nodes, waiting = {start}, [], [start]
    while waiting:
        for node in readers.get(waiting.pop(0), ()):
            ready = all(name in reached or name in scalars or not name for name in node.input)
            if ready and node.op_type in _ELEMENTWISE and node.output[0] not in reached:
                nodes.append(node)
                reached.add(node.output[0])
                if node.output[0] not in known:
                    waiting.append(node.output[0])
    return nodes


def _leading_to(nodes: Iterable[onnx.NodeProto], known: Mapping[str, Encoding]) -> list[str]:
    """Outputs of ``nodes`` without an Encoding on the way to one that has: not those of a float tail."""
    wanted: set[str] = set(known)
    found = []
    for node in reversed(list(nodes)):
        if node.output[0] in wanted:
            wanted.update(node.input)
            if node.output[0] not in known:
                found.append(node.output[0])
    return found[::-1]


def _computed(
    node: onnx.NodeProto, values: Mapping[str, np.ndarray], scalars: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    given = {name: values[name] if name in values else scalars[name] for name in node.input if name}
    (output,) = ReferenceEvaluator(node).run(None, given)
    return {node.output[0]: np.asarray(output, np.float32)}


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def _count(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims))
