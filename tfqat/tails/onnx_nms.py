"""ONNX NonMaxSuppression: an ONNX model that gives detections in onnxruntime, or any reader of standard ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tfqat.tails.onnx_decoding import write_boxes
from tfqat.tails.onnx_tail import Writer, attach, classes_of
from tfqat.tails.tail import BOXES, CLASSES, COUNT, PREFIX, SCORES, Tail

# Of an anchor and class that suppression took; below any score.
GONE = -1.0


def with_nms(model: onnx.ModelProto, tail: Tail) -> onnx.ModelProto:
    """The model with decoding and suppression behind its raw outputs, which those of ``onnx_tail.detections`` replace.

    Raises:
        TailError: outputs that are not there or not of these anchors, an opset below 13, or names that are taken.
    """
    classes = classes_of(model, tail)
    writer = Writer()
    boxes = write_boxes(writer, tail)
    scores = writer.node("Sigmoid", [tail.class_logits], "scores")
    kept = _suppressed(writer, tail, boxes, scores)
    best = _best(writer, kept, tail.max_detections, len(tail.anchors) * classes)
    _outputs(writer, best, boxes, classes)
    made = attach(model, tail, writer)
    onnx.checker.check_model(made, full_check=True)
    return made


def _suppressed(writer: Writer, tail: Tail, boxes: str, scores: str) -> str:
    """The scores ``(batch, anchors, classes)`` of what stays; GONE elsewhere."""
    by_class = writer.node("Transpose", [scores], "scores_by_class", perm=[0, 2, 1])
    # onnxruntime keeps what lies above the threshold; tfqat and the other formats also what is on it.
    above = np.nextafter(np.float32(tail.score_threshold), np.float32(-1))
    limits = [
        writer.constant("max_detections", [tail.max_detections], "int64"),
        writer.constant("iou_threshold", [tail.iou_threshold], "float32"),
        writer.constant("score_threshold", [above], "float32"),
    ]
    selected = writer.node("NonMaxSuppression", [boxes, by_class, *limits], "selected")
    # From (image, class, anchor): anchors first, so that of equal scores the earlier anchor's is before the others.
    order = writer.constant("anchor_before_class", [0, 2, 1], "int64")
    places = writer.node("Gather", [selected, order], "places", axis=1)
    found = writer.node("GatherND", [scores, places], "found")
    gone = helper.make_tensor("value", TensorProto.FLOAT, [1], [GONE])
    empty = writer.node("ConstantOfShape", [writer.node("Shape", [scores], "shape")], "empty", value=gone)
    return writer.node("ScatterND", [empty, places, found], "kept")


@dataclass(frozen=True)
class _Best:
    """Tensors ``(batch, max_detections)``: the scores that stay, by falling score, and where each was."""

    scores: str
    places: str


def _best(writer: Writer, kept: str, most: int, candidates: int) -> _Best:
    flat = writer.node("Reshape", [kept, writer.constant("flat", [0, -1], "int64")], "candidates")
    count = writer.constant("count", [min(most, candidates)], "int64")
    best = _Best(*writer.several("TopK", [flat, count], "top", [f"{PREFIX}top", f"{PREFIX}top/places"], axis=1))
    if candidates >= most:
        return best
    # Fewer candidates than places: the last are empty in every image.
    room = writer.constant("room", [0, 0, 0, most - candidates], "int64")
    gone, nowhere = writer.constant("gone", GONE, "float32"), writer.constant("nowhere", 0, "int64")
    return _Best(
        writer.node("Pad", [best.scores, room, gone], "top/padded"),
        writer.node("Pad", [best.places, room, nowhere], "top/places/padded"),
    )


def _outputs(writer: Writer, best: _Best, boxes: str, classes: int) -> None:
    nothing, zero = writer.constant("nothing", 0, "float32"), writer.constant("zero", 0, "int64")
    last = writer.constant("last_axis", [-1], "int64")
    width = writer.constant("classes", classes, "int64")
    filled = writer.node("GreaterOrEqual", [best.scores, nothing], "filled")
    counted = writer.node("Cast", [filled], "counted", to=TensorProto.INT32)
    writer.node("ReduceSum", [counted, last], "total", output=COUNT, keepdims=1)
    anchors = writer.node("Unsqueeze", [writer.node("Div", [best.places, width], "anchor"), last], "anchor/index")
    gathered = writer.node("GatherND", [boxes, anchors], "best_boxes", batch_dims=1)
    whole = writer.node("Unsqueeze", [filled, last], "filled/boxes")
    writer.node("Where", [whole, gathered, nothing], "filled_boxes", output=BOXES)
    writer.node("Max", [best.scores, nothing], "filled_scores", output=SCORES)
    found = writer.node("Where", [filled, writer.node("Mod", [best.places, width], "class"), zero], "filled_classes")
    writer.node("Cast", [found], "int_classes", output=CLASSES, to=TensorProto.INT32)
