"""ONNX tail: nodes behind the raw outputs of an ONNX model, all under one prefix; put on, and cut off again.

The raw part stays as it was, node for node, so that what is judged of it holds for the file with the tail: new nodes
and constants stand behind it, the raw outputs become inner tensors, and their places in the file are kept in its
metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tfqat.exporters.onnx_file import first_line, opset_of
from tfqat.tails.tail import (
    BOXES,
    CLASSES,
    COORDINATES,
    COUNT,
    PREFIX,
    SCORES,
    Tail,
    TailError,
    refuse_clash,
    refuse_missing,
)

# Axes as inputs, as in all that tfqat exports; NonMaxSuppression itself is older (10).
OLDEST_OPSET = 13
RAW_OUTPUTS = f"{PREFIX}raw_outputs"


class Writer:
    """The nodes and constants of a tail, in order; each call returns the name of the tensor that it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        """A stored array."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), PREFIX + name))
        return PREFIX + name

    def node(self, operator: str, inputs: Sequence[str], name: str, output: str = "", **attributes: Any) -> str:
        """A node with one output, a tensor of its own name where ``output`` is empty."""
        return self.several(operator, inputs, name, [output or PREFIX + name], **attributes)[0]

    def several(
        self, operator: str, inputs: Sequence[str], name: str, outputs: Sequence[str], **attributes: Any
    ) -> Sequence[str]:
        """A node with several outputs, under the names that are given."""
        self.nodes.append(helper.make_node(operator, list(inputs), list(outputs), name=PREFIX + name, **attributes))
        return outputs


def classes_of(model: onnx.ModelProto, tail: Tail) -> int:
    """How many classes the model's raw outputs have.

    Raises:
        TailError: the outputs are not there, have other shapes than the anchors ask for or are no float32.
    """
    outputs = {info.name: info.type.tensor_type for info in model.graph.output}
    refuse_missing((tail.class_logits, tail.box_regression), list(outputs))
    found = []
    for name in (tail.class_logits, tail.box_regression):
        if outputs[name].elem_type != TensorProto.FLOAT:
            received = TensorProto.DataType.Name(outputs[name].elem_type)
            raise TailError(f"{name}: expected a float32 output, received {received}.")
        dims = outputs[name].shape.dim
        found.append([dim.dim_value if dim.HasField("dim_value") else None for dim in dims])
    return tail.classes_of(*found)


def detections(model: onnx.ModelProto, tail: Tail) -> list[onnx.ValueInfoProto]:
    """What a file with a tail gives: ``num_detections (batch, 1)`` int32, ``detection_boxes (batch, max_detections,
    4)``, ``detection_scores (batch, max_detections)``, ``detection_classes (batch, max_detections)`` int32."""
    logits = next(info for info in model.graph.output if info.name == tail.class_logits)
    first = logits.type.tensor_type.shape.dim[0]
    batch, most = first.dim_value if first.HasField("dim_value") else first.dim_param, tail.max_detections
    return [
        helper.make_tensor_value_info(COUNT, TensorProto.INT32, [batch, 1]),
        helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, [batch, most, COORDINATES]),
        helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [batch, most]),
        helper.make_tensor_value_info(CLASSES, TensorProto.INT32, [batch, most]),
    ]


def attach(model: onnx.ModelProto, tail: Tail, writer: Writer) -> onnx.ModelProto:
    """A copy of the model with the writer's nodes behind it, and with the detections in place of the raw outputs.

    Raises:
        TailError: an opset that the nodes are not in, or names that are taken.
    """
    _check_opset(model)
    refuse_clash(_names(model))
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, given = made.graph, list(model.graph.output)
    raw = [info for info in given if info.name in (tail.class_logits, tail.box_regression)]
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.constants)
    graph.value_info.extend(raw)
    del graph.output[:]
    graph.output.extend([info for info in given if info not in raw])
    graph.output.extend(detections(model, tail))
    made.metadata_props.add(key=RAW_OUTPUTS, value=json.dumps([info.name for info in given]))
    return made


def raw_part(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its tail: the one that the tail was put on, equal to it byte for byte.

    Raises:
        TailError: it has no tail, or what is left without it is no whole model.
    """
    entry = next((entry for entry in model.metadata_props if entry.key == RAW_OUTPUTS), None)
    if entry is None:
        raise TailError(f"The model has no tail: its metadata hold no {RAW_OUTPUTS}.")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    wanted = json.loads(entry.value)
    told = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    inner = {name for name in wanted if name not in [info.name for info in model.graph.output]}
    _keep(graph.node, lambda node: not node.name.startswith(PREFIX))
    _keep(graph.initializer, lambda tensor: not tensor.name.startswith(PREFIX))
    _keep(graph.value_info, lambda info: info.name not in inner and not info.name.startswith(PREFIX))
    _keep(made.metadata_props, lambda other: other.key != RAW_OUTPUTS)
    del graph.output[:]
    graph.output.extend(told[name] for name in wanted if name in told)
    _check_whole(made, wanted)
    return made


def with_raw_part(model: onnx.ModelProto, raw: onnx.ModelProto) -> onnx.ModelProto:
    """The tail of ``model`` on another raw part that gives the same outputs, such as one that simulates a device."""
    made = onnx.ModelProto()
    made.CopyFrom(raw)
    graph, told = made.graph, list(raw.graph.output)
    graph.node.extend(node for node in model.graph.node if node.name.startswith(PREFIX))
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name.startswith(PREFIX))
    graph.value_info.extend(told)
    del graph.output[:]
    graph.output.extend(model.graph.output)
    made.metadata_props.add(key=RAW_OUTPUTS, value=json.dumps([info.name for info in told]))
    return made


def check_raw_part(model: onnx.ModelProto, raw: onnx.ModelProto) -> None:
    """Refuses a model with a tail whose raw part is not ``raw``, byte for byte.

    Raises:
        TailError: names the first thing that differs; or see :func:`raw_part`.
    """
    cut = raw_part(model)
    for field in ("node", "initializer", "input", "output"):
        ours, theirs = getattr(cut.graph, field), getattr(raw.graph, field)
        for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            if one != other:
                raise TailError(f"The raw part differs from the raw file at {field} {index}, {other.name!r}.")
        if len(ours) != len(theirs):
            raise TailError(f"The raw part has {len(ours)} of {field}, the raw file {len(theirs)}.")
    if cut.SerializeToString(deterministic=True) != raw.SerializeToString(deterministic=True):
        raise TailError("The raw part differs from the raw file beside the graph: in opsets, metadata or names.")


def _check_opset(model: onnx.ModelProto) -> None:
    if opset_of(model) < OLDEST_OPSET:
        raise TailError(
            f"The model is in opset {opset_of(model)}; a tail needs {OLDEST_OPSET} or later (NonMaxSuppression begins "
            f"at 10, axes as inputs at 13). Export it with opset 17."
        )


def _check_whole(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    refuse_missing(outputs, [info.name for info in model.graph.output])
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TailError(f"Without its tail the model is not whole ({first_line(error)}); export it again.") from error


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    tensors = [name for node in graph.node for name in (node.name, *node.output)]
    return [*tensors, *(item.name for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info))]


def _keep(items: Any, wanted: Any) -> None:
    kept = [item for item in items if wanted(item)]
    del items[:]
    items.extend(kept)
