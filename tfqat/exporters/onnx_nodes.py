"""Nodes: those of one ONNX graph while some are replaced by others; who gives and who reads each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import helper

from tfqat.exporters.onnx_tidy import names_read_inside


class Nodes:
    """The nodes, in order. They are told apart by identity."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.outputs = [info.name for info in model.graph.output]
        self._take(list(model.graph.node))

    def _take(self, nodes: list[onnx.NodeProto]) -> None:
        self.all = nodes
        self.producers = {name: node for node in nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def sole_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The only reader of a tensor that is no output; None where there are several, or none."""
        readers = self.readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def replace(self, gone: Sequence[onnx.NodeProto], made: Sequence[onnx.NodeProto]) -> None:
        """Puts ``made`` in the place of the first of ``gone``."""
        place = next(index for index, node in enumerate(self.all) if node is gone[0])
        self.all[place:place] = made
        self.all = [node for node in self.all if not any(node is one for one in gone)]
        for node in made:
            self.producers.update(dict.fromkeys(node.output, node))
        for node in gone:
            for name in node.input:
                self.readers[name] = [reader for reader in self.readers[name] if reader is not node]
        for node in made:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def prune(self) -> None:
        """Takes out the nodes that no output depends on."""
        live: set[int] = set()
        stack = list(self.outputs)
        while stack:
            node = self.producers.get(stack.pop())
            if node is not None and id(node) not in live:
                live.add(id(node))
                stack.extend((*node.input, *names_read_inside(node)))
        self._take([node for node in self.all if id(node) in live])


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute, a list for several numbers; None where the node has none of that name."""
    found = next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
    return list(found) if isinstance(found, Iterable) and not isinstance(found, bytes) else found


def set_attributes(node: onnx.NodeProto, **values: Any) -> None:
    """Gives a node these attributes, in place of others of their names; None takes one away."""
    kept = [a for a in node.attribute if a.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items() if value is not None)
