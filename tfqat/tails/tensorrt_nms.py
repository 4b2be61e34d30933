"""EfficientNMS_TRT: an ONNX model that gives detections in TensorRT, by its plugin.

Source: NVIDIA/TensorRT ``plugin/efficientNMSPlugin`` (README.md, version 1). The plugin looks at the 4096 highest
scores, drops a box where the overlap is at least ``iou_threshold``, and writes zeros where nothing was found. It takes
boxes as corners, of which the vertical may come first. It gets the logits and applies the sigmoid itself, to what it
keeps, as its README advises: a sigmoid of all scores would cost time, and in half precision make high scores equal.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from tfqat.exporters.onnx_file import first_line
from tfqat.exporters.onnx_nodes import attribute
from tfqat.tails.onnx_decoding import write_boxes
from tfqat.tails.onnx_tail import Writer, attach, classes_of, raw_part
from tfqat.tails.tail import BOXES, CLASSES, COORDINATES, COUNT, SCORES, Tail, TailError

PLUGIN = "EfficientNMS_TRT"
# What the plugin looks at most, and the threshold from which it leaves lower scores out instead of sorting them last.
CANDIDATES, LOWEST_THRESHOLD = 4096, 0.007
# No background among the classes, logits as scores, corners, each class for itself.
FIXED = {"plugin_version": "1", "background_class": -1, "score_activation": 1, "box_coding": 0, "class_agnostic": 0}


def with_nms(model: onnx.ModelProto, tail: Tail) -> onnx.ModelProto:
    """The model with decoding and the plugin behind its raw outputs, which those of ``onnx_tail.detections`` replace.

    ``onnx.checker`` and onnxruntime do not know the plugin and refuse the whole model; :func:`check` does not.

    Raises:
        TailError: as ``onnx_nms.with_nms``, or settings that the plugin does not do.
    """
    _check_settings(tail)
    classes_of(model, tail)
    writer = Writer()
    boxes = write_boxes(writer, tail)
    settings: dict[str, Any] = {
        "score_threshold": float(tail.score_threshold),
        "iou_threshold": float(tail.iou_threshold),
        "max_output_boxes": tail.max_detections,
        **FIXED,
    }
    writer.several(PLUGIN, [boxes, tail.class_logits], "nms", [COUNT, BOXES, SCORES, CLASSES], **settings)
    made = attach(model, tail, writer)
    check(made)
    return made


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Reads a file with the plugin, which ``onnx_file.load`` refuses.

    Raises:
        TailError: it is cut off, no ONNX model or not as :func:`check` asks.
        OSError: it cannot be opened.
    """
    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
    except DecodeError as error:
        raise TailError(f"{path} is not a whole ONNX model ({first_line(error)}); export it again.") from error
    check(model)
    return model


def check(model: onnx.ModelProto) -> None:
    """Refuses a model whose raw part or decoding is not whole, or whose plugin node is not as :func:`with_nms` writes.

    Raises:
        TailError: says what is wrong.
    """
    raw_part(model)
    node = plugin_node(model)
    other = [name for name, value in FIXED.items() if settings_of(node).get(name) != value]
    if other or list(node.output) != [COUNT, BOXES, SCORES, CLASSES]:
        raise TailError(
            f"{node.name}: expected the attributes {FIXED} and the outputs {COUNT}, {BOXES}, {SCORES}, {CLASSES}; "
            f"received {settings_of(node)} and {', '.join(node.output)}. Export the model again."
        )
    try:
        onnx.checker.check_model(before_plugin(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TailError(f"The decoding is not whole ({first_line(error)}); export the model again.") from error


def plugin_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The node of the plugin.

    Raises:
        TailError: there is none, or more than one.
    """
    found = [node for node in model.graph.node if node.op_type == PLUGIN]
    if len(found) != 1:
        raise TailError(f"The model has {len(found)} nodes {PLUGIN}; expected one, behind its raw outputs.")
    return found[0]


def settings_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of the plugin's node."""
    values = {entry.name: attribute(node, entry.name) for entry in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def before_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """What stands before the plugin, its outputs the boxes and the logits that the plugin reads."""
    node = plugin_node(model)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.node.remove(node)
    del made.graph.output[:]
    boxes, logits = node.input
    told = next(info for info in made.graph.value_info if info.name == logits)
    for name, last in ((boxes, COORDINATES), (logits, None)):
        info = made.graph.output.add()
        info.CopyFrom(told)
        info.name = name
        if last is not None:
            info.type.tensor_type.shape.dim[2].dim_value = last
    return made


def _check_settings(tail: Tail) -> None:
    if 0 < tail.score_threshold < LOWEST_THRESHOLD:
        raise TailError(
            f"score_threshold: below {LOWEST_THRESHOLD} {PLUGIN} sorts lower scores last instead of leaving them out, "
            f"and counts them; received {tail.score_threshold}. Set 0, which asks for all, or {LOWEST_THRESHOLD} and "
            f"more."
        )
    if tail.max_detections > CANDIDATES:
        raise TailError(
            f"max_detections: {PLUGIN} looks at {CANDIDATES} scores, so no more can be found; received "
            f"{tail.max_detections}."
        )
