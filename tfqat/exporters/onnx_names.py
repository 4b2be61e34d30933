"""Names: an ONNX graph whose tensors, nodes and initializers are called after the Keras ops they come from.

Tensors have the names of the view of the Keras model; a node has its op's name; weights are ``op/kernel`` and
``op/bias``; what the converter adds is ``op/<what it does>``, such as ``op/transpose``. All are ASCII without ':' and
','. The nodes are put in the order of the ops, so that the same model always gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import helper, numpy_helper

from tfqat.errors import TfqatError
from tfqat.exporters.onnx_fuse import fuse_dense, fuse_prelu
from tfqat.exporters.onnx_tidy import names_read, names_read_inside, rewire_inside
from tfqat.exporters.onnx_trace import INPUT, MARKER, OUTPUT, Trace
from tfqat.graph.graph import Graph
from tfqat.graph.kinds import IDENTITY

# Node type -> what its constant inputs are called.
_ROLES: Mapping[str, Mapping[int, str]] = {
    "Conv": {1: "kernel", 2: "bias"},
    "ConvTranspose": {1: "kernel", 2: "bias"},
    "Gemm": {1: "kernel", 2: "bias"},
    "MatMul": {0: "kernel", 1: "kernel"},
    "Clip": {1: "min", 2: "max"},
    "PRelu": {1: "slope"},
    "Pad": {1: "pads", 2: "value"},
    "Reshape": {1: "shape"},
    "Squeeze": {1: "axes"},
    "Unsqueeze": {1: "axes"},
    "ReduceSum": {1: "axes"},
}
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Named:
    """An ONNX model with our names.

    Attributes:
        model: the model.
        tensors: tensor of the Keras view -> the ONNX tensor that holds its values (its layout may differ).
        nodes: op -> names of the nodes that compute it, in order; empty where the converter needed none.
    """

    model: onnx.ModelProto
    tensors: Mapping[str, str]
    nodes: Mapping[str, tuple[str, ...]]


def rename(trace: Trace, graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> Named:
    """Takes the markers out of ``trace`` and gives everything its name; inputs and outputs those of ``checked_io``."""
    return _Renamer(trace, graph, inputs, outputs).renamed()


def checked_io(
    graph: Graph, input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the ONNX inputs and outputs: the user's, or Keras' where None.

    Raises:
        TfqatError: they do not fit the model.
    """
    inputs = io_names("input", graph.inputs, input_names)
    outputs = io_names("output", graph.outputs, output_names)
    clash = set(inputs) & set(outputs)
    if clash and not (input_names is None and output_names is None):
        raise TfqatError(f"Inputs and outputs need different names, received {sorted(clash)} for both.")
    return inputs, outputs


def io_names(what: str, keras_names: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the graph's inputs or outputs: the user's, or those of Keras (numbered where one comes twice).

    Raises:
        TfqatError: a wrong count, a name twice, or one that a TensorRT file cannot hold.
    """
    if given is None:
        names: list[str] = []
        for name in keras_names:
            names.append(_unique(name, names))
        return tuple(names)
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != len(keras_names) or len(set(names)) != len(names):
        raise TfqatError(
            f"{what}_names needs {len(keras_names)} different names, for {list(keras_names)}, received {names}."
        )
    for name in names:
        if not (isinstance(name, str) and re.fullmatch(r"[!-+.-9;-~-]+", name)):
            raise TfqatError(
                f"{what}_names: {name!r} must be ASCII without blanks, ':' and ',' (the cache's readers and trtexec "
                f"split there)."
            )
    return tuple(names)


def _unique(wanted: str, used: Iterable[str]) -> str:
    name, number = wanted, 1
    while name in used:
        name, number = f"{wanted}_{number}", number + 1
    return name


@dataclass
class _Owned:
    """The nodes of one op, in order; or, behind it, those that give a model output its layout."""

    op: str
    layer: str
    behind: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)


class _Renamer:
    """The state of one renaming: which names are taken, what each old name became."""

    def __init__(self, trace: Trace, graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.graph, self.trace, self.inputs, self.outputs = graph, trace, inputs, outputs
        self.old = trace.model.graph
        self.producers = {name: node for node in self.old.node for name in node.output}
        self.constants = dict(trace.constants)
        self.layers = {tensor: op.layer_name for op in graph.ops for tensor in op.outputs}
        self.ops = {op.name: op for op in graph.ops}
        # What is read without a marker in between: it is inside an op.
        self.read_inside = names_read(node for node in self.old.node if not node.name.startswith(MARKER))
        self.aliases: dict[str, str] = {}  # raw tensor behind a marker -> raw tensor before it
        self.names: dict[str, str] = {}  # raw tensor -> final name
        self.used: set[str] = set()
        self.node_names: set[str] = set()
        self.new_constants: dict[tuple[str, str], str] = {}  # raw constant, layer -> final name
        self.new_nodes: list[onnx.NodeProto] = []

    def renamed(self) -> Named:
        tensors = self._name_tensors()
        owned = self._owned_nodes()
        nodes: dict[str, tuple[str, ...]] = {op.name: () for op in self.graph.ops}
        for group in owned:
            nodes[group.op] = nodes.get(group.op, ()) + tuple(self._write(group))
        tensors = {name: self.names[self._source(raw)] for name, raw in tensors.items()}
        model = helper.make_model(
            self._graph(), producer_name="tfqat", opset_imports=[_default_domain(self.trace.model)]
        )
        model.ir_version = self.trace.model.ir_version
        # Last and one by one: each protobuf message that they went through would hold them all once more.
        for (raw, _), name in self.new_constants.items():
            model.graph.initializer.append(numpy_helper.from_array(self.constants[raw], name))
        return Named(model, tensors, nodes)

    def _name_tensors(self) -> dict[str, str]:
        """Names graph inputs, graph outputs and marked tensors; gives Keras tensor -> raw tensor."""
        for node in self.old.node:
            if node.name.startswith(MARKER):
                self.aliases[node.output[0]] = node.input[0]
        for i, name in enumerate(self.inputs):
            self.names[f"{INPUT}{i:05d}"] = self._take(name)
        for i, name in enumerate(self.outputs):
            self._name_output(f"{OUTPUT}{i:05d}", name)
        tensors = {name: f"{INPUT}{i:05d}" for i, name in enumerate(self.graph.inputs)}
        markers = {node.name: node for node in self.old.node if node.name.startswith(MARKER)}
        for number, name in enumerate(self.trace.tensors):
            marker = markers.get(f"{MARKER}{number}")
            if marker is None:
                continue  # a constant, or a tensor that no output depends on
            tensors[name] = self._name_marked(marker, name)
        return tensors

    def _name_output(self, raw: str, name: str) -> None:
        source = self._source(raw)
        if source in self.names or source in self.constants:
            identity = helper.make_node("Identity", [source], [raw + "/identity"], name=raw)
            self._redirect(raw, identity)
            source = identity.output[0]
        self.names[source] = self._take(name)

    def _name_marked(self, marker: onnx.NodeProto, name: str) -> str:
        """The raw tensor that stands for Keras' tensor ``name``, named."""
        source = self._source(marker.output[0])
        known = self.names.get(source)
        if source in self.constants:  # a weight that ops read as they read any tensor, with a range of its own
            own = helper.make_node("Identity", [source], [marker.output[0] + "/identity"], name=marker.name)
            self._redirect(marker.output[0], own)
            self.names[own.output[0]] = self._take(name)
            return own.output[0]
        if known is None and source not in self.read_inside:
            self.names[source] = self._take(name if name not in self.used else f"{name}/transpose")
        elif known is None or not (known == name or self._is_output(known, name) or self._passes_through(name)):
            # The converter merged two ops that compute the same, or one with what another does inside (the sigmoid of
            # a SiLU); each keeps a tensor, since ranges may differ.
            own = self._apart(source, known, name, marker.output[0] + "/identity") or helper.make_node(
                "Identity", [source], [marker.output[0] + "/identity"], name=marker.name
            )
            self._redirect(marker.output[0], own)
            self.names[own.output[0]] = self._take(name)
            return own.output[0]
        return source

    def _apart(self, source: str, known: str | None, name: str, output: str) -> onnx.NodeProto | None:
        """A node of its own for one of two ops that compute the same of one tensor; None where it takes several.

        An Identity behind the other's would leave the tensor with one reader, and TensorRT fuses along such tensors.
        """
        node, ours, other = self.producers.get(source), self.graph.producer(name), self.graph.producer(known or "")
        if node is None or ours is None or other is None or (ours.kind, ours.inputs) != (other.kind, other.inputs):
            return None
        if [self.names.get(self._source(raw)) for raw in node.input if raw not in self.constants] != list(ours.inputs):
            return None
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = output
        del copy.output[:]
        copy.output.append(output)
        return copy

    def _is_output(self, known: str, name: str) -> bool:
        return known in self.outputs and self.graph.outputs[self.outputs.index(known)] == name

    def _passes_through(self, tensor: str) -> bool:
        op = self.graph.producer(tensor)
        return op is None or op.kind in IDENTITY

    def _redirect(self, raw: str, node: onnx.NodeProto) -> None:
        self.producers[node.output[0]] = node
        self.aliases[raw] = node.output[0]

    def _source(self, raw: str) -> str:
        """The raw tensor after looking through markers."""
        while raw in self.aliases:
            raw = self.aliases[raw]
        return raw

    def _take(self, wanted: str) -> str:
        name = _unique(wanted, self.used)
        self.used.add(name)
        return name

    def _owned_nodes(self) -> list[_Owned]:
        """All live nodes, grouped by the op whose output they lead to, producers first."""
        done: set[str] = set()
        groups = []
        markers = {node.name: node for node in self.old.node if node.name.startswith(MARKER)}
        for number, name in enumerate(self.trace.tensors):
            if f"{MARKER}{number}" in markers:
                op = self.graph.producer(name)
                group = _Owned(op.name if op else name, self.layers.get(name, name))
                group.nodes = self._ancestors(markers[f"{MARKER}{number}"].output[0], done)
                groups.append(group)
        for i, name in enumerate(self.graph.outputs):
            op = self.graph.producer(name)
            group = _Owned(op.name if op else name, self.layers.get(name, name), behind=True)
            group.nodes = self._ancestors(f"{OUTPUT}{i:05d}", done)
            groups.append(group)
        return groups

    def _ancestors(self, raw: str, done: set[str]) -> list[onnx.NodeProto]:
        """The nodes, not yet done, that compute ``raw``: producers first, inputs in order; without recursion."""
        order, stack = [], [(self._source(raw), False)]
        while stack:
            tensor, ready = stack.pop()
            node = self.producers.get(tensor)
            if node is None or node.output[0] in done:
                continue
            if ready:
                done.add(node.output[0])
                order.append(node)
                continue
            stack.append((tensor, True))
            reads = (*node.input, *names_read_inside(node))
            stack.extend((self._source(name), False) for name in reversed(reads) if name)
        return order

    def _write(self, group: _Owned) -> list[str]:
        """Appends the group's nodes under their final names; gives those names."""
        group.nodes = self._fused(group)
        primary = None if group.behind else self._primary(group.nodes)
        names = []
        for node in group.nodes:
            word = node.op_type.lower()
            new = onnx.NodeProto()
            new.CopyFrom(node)
            new.name = self._node_name(group.op if node is primary else f"{group.op}/{word}")
            for i, raw in enumerate(node.output):
                if raw and raw not in self.names:
                    self.names[raw] = self._take(f"{group.op}/{word}" + (f"_out{i}" if i else ""))
                new.output[i] = self.names.get(raw, "")
            for i, raw in enumerate(node.input):
                new.input[i] = self._input_name(group, node, i, raw)
            rewire_inside(new, {raw: self._input_name(group, node, -1, raw) for raw in self._captured(node)})
            self.new_nodes.append(new)
            names.append(new.name)
        return names

    def _fused(self, group: _Owned) -> list[onnx.NodeProto]:
        op = self.ops.get(group.op)
        if op is not None and op.kind == "dense" and len(self.graph.shapes[op.inputs[0]]) == 2:
            return fuse_dense(group.nodes, self.constants)
        if op is not None and op.kind == "prelu":
            return fuse_prelu(group.nodes, self.constants)
        return group.nodes

    def _primary(self, nodes: Sequence[onnx.NodeProto]) -> onnx.NodeProto | None:
        """The node that gets the op's own name: the weighted one, or else the last."""
        weighted = [node for node in nodes if node.op_type in WEIGHTED and self._reads_constant(node)]
        return weighted[0] if len(weighted) == 1 else (nodes[-1] if nodes else None)

    def _reads_constant(self, node: onnx.NodeProto) -> bool:
        return any(name in self.constants for name in node.input)

    def _node_name(self, wanted: str) -> str:
        name = _unique(wanted, self.node_names)
        self.node_names.add(name)
        return name

    def _input_name(self, group: _Owned, node: onnx.NodeProto, index: int, raw: str) -> str:
        raw = self._source(raw) if raw else raw
        if raw not in self.constants:
            return self.names[raw] if raw else ""
        key = (raw, group.layer)  # calls of one layer share its weights; equal weights of two layers are two
        if key not in self.new_constants:
            role = _ROLES.get(node.op_type, {}).get(index) or self._role(group, node, raw)
            self.new_constants[key] = self._take(f"{group.layer}/{role}")
        return self.new_constants[key]

    def _captured(self, node: onnx.NodeProto) -> list[str]:
        """What graphs inside the node read of this one."""
        read = names_read_inside(node)
        return [raw for raw in read if raw in self.constants or self._source(raw) in self.names]

    def _role(self, group: _Owned, node: onnx.NodeProto, raw: str) -> str:
        after_weighted = any(other.op_type in WEIGHTED and self._reads_constant(other) for other in group.nodes)
        return "bias" if node.op_type == "Add" and after_weighted else f"{node.op_type.lower()}_constant"

    def _graph(self) -> onnx.GraphProto:
        inputs = [_value_info(info, self.names[info.name], self.names[info.name]) for info in self.old.input]
        outputs = [_value_info(info, self.names[self._source(info.name)], "") for info in self.old.output]
        name = re.sub(r"[^A-Za-z0-9_./\-]", "_", self.graph.name)
        return helper.make_graph(self.new_nodes, name, inputs, outputs)


def _value_info(info: onnx.ValueInfoProto, name: str, prefix: str) -> onnx.ValueInfoProto:
    """An input or output under its final name; the first open dimension is ``batch``."""
    shape: list[int | str | None] = []
    for axis, dim in enumerate(info.type.tensor_type.shape.dim):
        open_name = "batch" if axis == 0 else f"{prefix or name}_dim{axis}"
        shape.append(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else open_name)
    return helper.make_tensor_value_info(name, info.type.tensor_type.elem_type, shape)


def _default_domain(model: onnx.ModelProto) -> onnx.OperatorSetIdProto:
    return next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
