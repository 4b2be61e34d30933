"""Small files whose raw outputs are their inputs, and what a detector's user expects of them, in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import assume
from onnx import TensorProto, helper

from tfqat.detection.boxes import decode
from tfqat.detection.nms import suppress
from tfqat.exporters.tflite_graph.flatbuffer import pack
from tfqat.tails.tail import Tail

SIZE = (64, 96)
NAMES = {"class_logits": "logits", "box_regression": "codes"}


def anchors(generator, count):
    starts = generator.uniform(-8, [40, 60], (count, 2))
    return np.concatenate([starts, starts + generator.uniform(8, 40, (count, 2))], axis=1).astype(np.float32)


def raw_outputs(generator, batch, count, classes):
    """Logits of all strengths, and codes of which some are far beyond the largest growth."""
    codes = generator.normal(0, 0.3, (batch, count, 4))
    codes[..., 2:] += np.where(generator.uniform(size=(batch, count, 2)) < 0.05, 14, 0)
    return {
        "logits": generator.normal(-1, 2, (batch, count, classes)).astype(np.float32),
        "codes": codes.astype(np.float32),
    }


def onnx_file(count, classes, batch="batch", opset=17, kind=TensorProto.FLOAT):
    sizes = {"class_logits": classes, "box_regression": 4}
    given = [helper.make_tensor_value_info(NAMES[name], kind, [batch, count, last]) for name, last in sizes.items()]
    raw = [helper.make_tensor_value_info(name, kind, [batch, count, last]) for name, last in sizes.items()]
    nodes = [helper.make_node("Identity", [NAMES[name]], [name], name=name) for name in sizes]
    # In alphabetical order, as exported files have them.
    graph = helper.make_graph(nodes, "raw", given, raw[::-1])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def tflite_file(count, classes, batch=1, scales=None, signed=True):
    """float32, or int8 where ``scales`` has (scale, zero point) of the logits and the codes."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    for index, (name, last) in enumerate({"class_logits": classes, "box_regression": 4}.items()):
        for label in (NAMES[name], name):
            graph.tensors.append(_tensor(label, [batch, count, last], scales and scales[index]))
        graph.inputs.append(2 * index)
        graph.outputs.append(2 * index + 1)
        reshape = schema.OperatorT()
        reshape.opcodeIndex, reshape.inputs, reshape.outputs = 0, [2 * index], [2 * index + 1]
        reshape.builtinOptionsType, reshape.builtinOptions = (
            schema.BuiltinOptions.ReshapeOptions,
            schema.ReshapeOptionsT(),
        )
        reshape.builtinOptions.newShape = [batch, count, last]
        graph.operators.append(reshape)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    return pack(model)


def _tensor(name, shape, scale):
    made = schema.TensorT()
    made.name, made.shape, made.buffer = name, shape, 0
    made.shapeSignature = [-1 if shape[0] == 1 else shape[0], *shape[1:]]
    made.type = schema.TensorType.FLOAT32
    if scale is not None:
        made.type, made.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale[0]], [scale[1]]
    return made


def decided(boxes, scores, tail):
    """Leaves examples out in which rounding decides: an overlap or a score on its threshold, equal scores."""
    starts, ends = (
        np.maximum(boxes[:, None, :2], boxes[None, :, :2]),
        np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]),
    )
    shared = np.prod(np.maximum(ends - starts, 0), axis=-1, dtype=np.float64)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1, dtype=np.float64)
    overlaps = shared / (area[:, None] + area[None] - shared)
    assume((np.abs(overlaps - tail.iou_threshold) > 1e-4).all())
    assume((np.abs(scores - tail.score_threshold) > 1e-5).all())
    assume((np.diff(np.sort(scores, axis=None)) > 1e-6).all())


def expected(logits, codes, tail, check=None):
    """Of each image: boxes, scores and classes, padded with zeros; ``check`` may leave an example out."""
    found = []
    for image, code in zip(logits.astype(np.float64), codes, strict=True):
        boxes, scores = np.asarray(decode(code, tail.anchors)), 1 / (1 + np.exp(-image))
        if check is not None:
            check(boxes, scores, tail)
        kept = suppress(boxes, scores, tail.iou_threshold, tail.score_threshold, tail.max_detections, scores.size)
        empty = tail.max_detections - len(kept.scores)
        pad = [
            np.pad(kept.boxes, ((0, empty), (0, 0))),
            np.pad(kept.scores, (0, empty)),
            np.pad(kept.classes, (0, empty)),
        ]
        found.append([len(kept.scores), *pad])
    count, boxes, scores, classes = (np.stack(column) for column in zip(*found, strict=True))
    return {
        "num_detections": count[:, None],
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
    }


def agree(received, told):
    """The same detections in the same places, up to rounding."""
    assert set(received) == set(told)
    for name in ("num_detections", "detection_classes"):
        np.testing.assert_array_equal(received[name], told[name], name)
    for name, tolerance in (("detection_scores", 1e-6), ("detection_boxes", 1e-3)):
        np.testing.assert_allclose(received[name], told[name], rtol=1e-5, atol=tolerance, err_msg=name)


class Files:
    """What the tests of all formats share."""

    onnx, tflite, agree, expected = (staticmethod(f) for f in (onnx_file, tflite_file, agree, expected))
    raw_outputs, decided, size = staticmethod(raw_outputs), staticmethod(decided), SIZE

    @staticmethod
    def tail(generator, count, **settings):
        return Tail(anchors(generator, count), SIZE, **settings)


@pytest.fixture(scope="session")
def files():
    return Files
