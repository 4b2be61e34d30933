"""SavedModel folders of Keras 2: the config in their metadata, the weights in their checkpoint. No function is run.

``keras_metadata.pb`` (since TensorFlow 2.5; before, ``saved_model.pb`` itself) has the config of the model in JSON;
``saved_model.pb`` has the graph of objects, in which each layer lists its ``variables``; the checkpoint has a graph of
the same objects, with the key of each variable's value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tfqat.errors import TfqatError
from tfqat.models.keras2.model import PARTS, Keras2Model, Weights, made, own_name, plain

_METADATA = "keras_metadata.pb"
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
# Field numbers of SavedMetadata.nodes, and of node_id and metadata in each (saved_metadata.proto).
_NODES, _NODE_ID, _NODE_METADATA = 1, 2, 5
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_saved_model(folder: Path) -> Keras2Model:
    """The Keras 2 model in a SavedModel folder.

    Raises:
        TfqatError: a SavedModel without Keras metadata (Keras 3's model.export, plain TensorFlow), a subclassed model,
            a damaged one.
    """
    source = str(folder)
    try:
        graph = _object_graph(folder)
        metadata = _metadata(folder, graph)
        if 0 not in metadata or "config" not in metadata[0]:
            raise TfqatError(_no_metadata(folder))
        weights = dict(_weights(_Objects(folder, graph), metadata))
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        import_module("google.protobuf.message").DecodeError,
        import_module("tensorflow").errors.OpError,
    ) as error:
        if isinstance(error, TfqatError):
            raise
        raise TfqatError(
            f"{folder} is a damaged SavedModel ({type(error).__name__}: {error}). Expected saved_model.pb, "
            "keras_metadata.pb and the folder variables, as TensorFlow wrote them; copy the whole folder again."
        ) from error
    return made(source, metadata[0], weights)


def _no_metadata(folder: Path) -> str:
    return (
        f"{folder} is a SavedModel without the config of a Keras model: it is no more than TensorFlow functions (what "
        "Keras 3's model.export and tf.saved_model.save write), or of a subclassed model. Save the model itself, as "
        ".keras or .h5 (model.save('model.keras'))."
    )


def _object_graph(folder: Path) -> Any:
    proto = import_module("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    if not proto.meta_graphs or not proto.meta_graphs[0].object_graph_def.nodes:
        raise TfqatError(_no_metadata(folder))
    return proto.meta_graphs[0].object_graph_def


def _metadata(folder: Path, graph: Any) -> dict[int, Mapping[str, Any]]:
    """Object -> its metadata."""
    path = folder / _METADATA
    if path.exists():
        nodes = (dict(_fields(node)) for number, node in _fields(path.read_bytes()) if number == _NODES)
        texts = {node.get(_NODE_ID, 0): node.get(_NODE_METADATA, b"{}").decode() for node in nodes}
    else:
        texts = {
            index: node.user_object.metadata for index, node in enumerate(graph.nodes) if node.user_object.metadata
        }
    return {index: plain(json.loads(text)) for index, text in texts.items() if text.startswith("{")}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: number, and the integer or the bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, position = _varint(data, position)
        if size is None or position + size > len(data):
            raise ValueError(f"{_METADATA} ends within a field")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return value, position


class _Objects:
    """The objects of a SavedModel, walked together with those of its checkpoint."""

    def __init__(self, folder: Path, graph: Any) -> None:
        tensorflow = import_module("tensorflow")
        self.reader = tensorflow.train.load_checkpoint(str(folder / "variables" / "variables"))
        saved = import_module("tensorflow.core.protobuf.trackable_object_graph_pb2").TrackableObjectGraph()
        saved.ParseFromString(self.reader.get_tensor(_GRAPH_KEY))
        self.graph = graph
        self.keys = _keys(graph, saved)

    def children(self, index: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in self.graph.nodes[index].children}

    def listed(self, index: int) -> Weights | None:
        """The variables that a layer lists; None where it lists none (saved without traces, preprocessing layers)."""
        children = self.children(index)
        if "variables" not in children:
            return None
        items = self.children(children["variables"])
        return tuple(self._named(items[name]) for name in sorted(items, key=int))

    def held(self, index: int) -> Weights:
        """The variables of a layer itself, then those of its parts."""
        children = self.children(index)
        own = [child for child in children.values() if self.graph.nodes[child].WhichOneof("kind") == "variable"]
        found = tuple(dict(map(self._named, own)).items())
        for name in (*PARTS, *sorted((name for name in children if name.isdigit()), key=int)):
            found += self.held(children[name]) if name in children else ()
        return found

    def _named(self, index: int) -> tuple[str, np.ndarray]:
        return own_name(self.graph.nodes[index].variable.name), self.value(index)

    def value(self, index: int) -> np.ndarray:
        return np.asarray(self.reader.get_tensor(self.keys[index]))


def _keys(graph: Any, saved: Any) -> dict[int, str]:
    """Variable -> the key of its value in the checkpoint."""
    keys: dict[int, str] = {}
    pairs = {0: 0}
    waiting = [(0, 0)]
    while waiting:
        index, other = waiting.pop()
        for attribute in saved.nodes[other].attributes:
            if attribute.name == _VALUE:
                keys[index] = attribute.checkpoint_key
        there = {child.local_name: child.node_id for child in saved.nodes[other].children}
        for child in graph.nodes[index].children:
            if child.local_name in there and child.node_id not in pairs:
                pairs[child.node_id] = there[child.local_name]
                waiting.append((child.node_id, there[child.local_name]))
    return keys


def _weights(
    objects: _Objects, metadata: Mapping[int, Mapping[str, Any]], index: int = 0, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Weights]]:
    """The weights of each layer of the model; those of a model inside it in one list, where it has one."""
    for name, child in objects.children(index).items():
        if not name.startswith("layer-") or child not in metadata:
            continue
        here = (*path, str(metadata[child]["name"]))
        parts = objects.children(child)
        inner = parts.get("layer", -1)
        if (listed := objects.listed(child)) is not None:
            yield here, listed
        elif "layer-0" in parts:
            yield from _weights(objects, metadata, child, here)
        elif inner >= 0 and "layer-0" in objects.children(inner):
            yield from _weights(objects, metadata, inner, (*here, str(metadata[inner]["name"])))
        else:
            yield here, objects.held(child)
