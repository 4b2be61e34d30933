"""Decoding as ONNX nodes: box regression becomes boxes, with the numbers of ``detection.boxes.decode``."""

from __future__ import annotations

from tfqat.detection.boxes import LARGEST_GROWTH
from tfqat.tails.onnx_tail import Writer
from tfqat.tails.tail import Tail


def write_boxes(writer: Writer, tail: Tail) -> str:
    """Writes the decoding; the boxes ``(batch, anchors, 4)`` are ``ymin, xmin, ymax, xmax`` in pixels, not clipped."""
    middles = writer.constant("anchors/middles", tail.middles, "float32")
    sizes = writer.constant("anchors/sizes", tail.sizes, "float32")
    most = writer.constant("largest_growth", LARGEST_GROWTH, "float32")
    two = writer.constant("two", 2, "float32")
    moved = writer.node("Mul", [_columns(writer, tail, 0), sizes], "moved")
    middle = writer.node("Add", [moved, middles], "middle")
    growth = writer.node("Exp", [writer.node("Min", [_columns(writer, tail, 2), most], "bounded")], "growth")
    half = writer.node("Div", [writer.node("Mul", [growth, sizes], "size"), two], "half")
    corners = [writer.node("Sub", [middle, half], "start"), writer.node("Add", [middle, half], "end")]
    return writer.node("Concat", corners, "boxes", axis=-1)


def _columns(writer: Writer, tail: Tail, first: int) -> str:
    """Two of the four codes."""
    bounds = {"from": first, "to": first + 2, "axis": 2}
    limits = [writer.constant(f"codes{first}/{name}", [value], "int64") for name, value in bounds.items()]
    return writer.node("Slice", [tail.box_regression, *limits], f"codes{first}")
