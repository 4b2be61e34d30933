"""Plain names: a foreign ONNX whose tensors' and nodes' names every reader of a cache takes as they are.

A cache's line is split at a colon, and ``--layerPrecisions`` at colons and commas; TensorFlow's and PyTorch's
exporters write such names (``input:0``, ``onnx::Add_12``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import onnx

from tfqat.core.encoding import Encodings
from tfqat.exporters.onnx_qdq import UNQUANTIZED_READERS
from tfqat.exporters.onnx_tidy import rewire

_BAD = re.compile(r"[^!-)+.-9;-~-]")
T = TypeVar("T")


def plain(model: onnx.ModelProto, told: Encodings) -> tuple[onnx.ModelProto, Encodings, list[str]]:
    """A copy with plain names, its Encodings, and the renamings as ``old -> new``; inputs and outputs included."""
    graph = model.graph
    tensors = [*(info.name for info in graph.input), *(name for node in graph.node for name in node.output if name)]
    taken = {tensor.name for tensor in graph.initializer}
    names = _renamings(tensors, taken)
    nodes = _renamings([node.name for node in graph.node], set())
    if not names and not nodes:
        return model, told, []
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rewire(copy.graph.node, names)
    for node in copy.graph.node:
        node.name = nodes.get(node.name, node.name)
        for i, name in enumerate(node.output):
            node.output[i] = names.get(name, name)
    for info in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        info.name = names.get(info.name, info.name)
    return copy, _renamed(told, names, nodes), [f"{old} -> {new}" for old, new in {**nodes, **names}.items()]


def _renamings(names: Iterable[str], taken: set[str]) -> dict[str, str]:
    names = list(names)
    used, found = {*names, *taken}, dict[str, str]()
    for name in names:
        wanted = _BAD.sub("_", name)
        if wanted == name or name in found:
            continue
        while wanted in used:
            wanted += "_"
        used.add(wanted)
        found[name] = wanted
    return found


def _renamed(told: Encodings, names: Mapping[str, str], nodes: Mapping[str, str]) -> Encodings:
    raw = told.metadata.get(UNQUANTIZED_READERS, {})
    readers = {names.get(name, name): [nodes.get(node, node) for node in of] for name, of in raw.items()}
    return replace(
        told,
        activations=_keys(told.activations, names),
        weights=_keys(told.weights, nodes),
        float_ops=_keys(told.float_ops, nodes),
        metadata={**told.metadata, **({UNQUANTIZED_READERS: readers} if readers else {})},
    )


def _keys(rows: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    return {names.get(name, name): value for name, value in rows.items()}
