"""TFLite_Detection_PostProcess: a TFLite model that gives detections, by the custom op that the runtimes bring along.

Source: ``tensorflow/lite/kernels/detection_postprocess.cc``. The op decodes and suppresses itself, in float, one image
a run. It reads anchors as middle and size; its boxes are in what the anchors are in, so these are divided by the image
size, and the boxes run from 0 to 1 over the image, as readers of such files expect. With as many scores a box as
``num_classes`` it takes none for a background. ``use_regular_nms`` suppresses each class for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tfqat.detection.boxes import LARGEST_GROWTH
from tfqat.exporters.tflite_graph.flatbuffer import IDENTIFIER, AlignedBuffer, pack, unpack
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

POSTPROCESS = "TFLite_Detection_PostProcess"
FLOAT, INTEGER = schema.TensorType.FLOAT32, schema.TensorType.INT8
# Versions with the types that stand here.
VERSIONS = {"DEQUANTIZE": 2, "LOGISTIC": 1, "MINIMUM": 1, "CUSTOM": 1}


def with_nms(data: bytes, tail: Tail) -> bytes:
    """The file with decoding and suppression behind its raw outputs, int8 or float32.

    Outputs, float32: ``detection_boxes (1, max_detections, 4)``, ``ymin, xmin, ymax, xmax`` in image heights and
    widths, ``detection_classes (1, max_detections)``, ``detection_scores (1, max_detections)``, ``num_detections
    (1,)``, in the order of the op. The file's batch is fixed at 1.

    Raises:
        TailError: no TFLite file, outputs that are not there or not of these anchors, a batch that is not 1, or names
            that are taken.
    """
    if data[4:8] != IDENTIFIER:
        raise TailError(f"These {len(data)} bytes are no TFLite file: expected {IDENTIFIER!r} at byte 4.")
    extension = _Extension(unpack(data))
    logits, codes, classes = _raw(extension, tail)
    count = len(tail.anchors)
    scores = extension.add("LOGISTIC", [extension.real(logits, "logits")], "scores", [1, count, classes])
    bounded = [extension.real(codes, "codes"), extension.constant("largest_codes", _largest())]
    codes = extension.add("MINIMUM", bounded, "bounded", [1, count, COORDINATES])
    anchors = extension.constant("anchors", _anchors(tail))
    found = {name: extension.tensor(name, shape) for name, shape in _shapes(tail.max_detections).items()}
    extension.operator("CUSTOM", [codes, scores, anchors], list(found.values()), _options(tail, classes))
    extension.replace((tail.class_logits, tail.box_regression), found)
    extension.fix_batch()
    return pack(extension.model, len(data))


def _raw(extension: _Extension, tail: Tail) -> tuple[int, int, int]:
    """The tensors of the class logits and the box regression, and how many classes there are."""
    names, outputs = (tail.class_logits, tail.box_regression), extension.outputs
    refuse_missing(names, list(outputs))
    logits, codes = (outputs[name] for name in names)
    classes = tail.classes_of(extension.shape(logits), extension.shape(codes))
    for name in names:
        batch = extension.shape(outputs[name])[0]
        if batch != 1:
            raise TailError(
                f"{name}: {POSTPROCESS} takes one image a run, received a batch of {batch}. Export the model with a "
                f"batch of 1 or an open one, or with raw outputs."
            )
    return logits, codes, classes


def _shapes(most: int) -> dict[str, list[int]]:
    """The op's outputs, in its order."""
    return {BOXES: [1, most, COORDINATES], CLASSES: [1, most], SCORES: [1, most], COUNT: [1]}


def _anchors(tail: Tail) -> np.ndarray:
    """``(anchors, 4)``: y and x of the middle, height, width, in image heights and widths."""
    size = np.asarray(tail.image_size, np.float32)
    return np.concatenate([tail.middles / size, tail.sizes / size], axis=1)


def _largest() -> np.ndarray:
    """The largest codes: those of a middle are not bounded."""
    unbounded = np.finfo(np.float32).max
    return np.array([unbounded, unbounded, LARGEST_GROWTH, LARGEST_GROWTH], np.float32)


def _options(tail: Tail, classes: int) -> bytes:
    return bytes(
        flexbuffers.Dumps(
            {
                "max_detections": tail.max_detections,
                "max_classes_per_detection": 1,
                # As many as there are places: a class may fill them all.
                "detections_per_class": tail.max_detections,
                "use_regular_nms": True,
                "nms_score_threshold": float(tail.score_threshold),
                "nms_iou_threshold": float(tail.iou_threshold),
                "num_classes": classes,
                "y_scale": 1.0,
                "x_scale": 1.0,
                "h_scale": 1.0,
                "w_scale": 1.0,
            }
        )
    )


class _Extension:
    """A model that tensors and operators are added to."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self._codes: dict[str, int] = {}
        refuse_clash([_text(tensor.name) for tensor in self.graph.tensors])

    @property
    def outputs(self) -> dict[str, int]:
        """Output -> tensor: by the names of the signature, where the file has one."""
        for signature in self.model.signatureDefs or []:
            return {_text(entry.name): entry.tensorIndex for entry in signature.outputs}
        return {_text(self.graph.tensors[index].name): index for index in self.graph.outputs}

    def shape(self, index: int) -> list[int]:
        """The sizes of a tensor, 1 for an open batch."""
        return [int(size) for size in self.graph.tensors[index].shape]

    def tensor(self, name: str, shape: Sequence[int]) -> int:
        """A float32 tensor that is computed."""
        made = schema.TensorT()
        made.name, made.type, made.shape, made.buffer = name, FLOAT, list(shape), 0
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: np.ndarray) -> int:
        """A float32 tensor that is stored."""
        made = self.tensor(PREFIX + name, values.shape)
        buffer = AlignedBuffer()
        buffer.data = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[made].buffer = len(self.model.buffers) - 1
        return made

    def add(self, operator: str, inputs: Sequence[int], name: str, shape: Sequence[int]) -> int:
        """A builtin with one output, a tensor of its own."""
        made = self.tensor(PREFIX + name, shape)
        self.operator(operator, inputs, [made])
        return made

    def operator(self, operator: str, inputs: Sequence[int], outputs: Sequence[int], options: bytes = b"") -> None:
        """An operator; the options are those of a custom one."""
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self._code(operator), list(inputs), list(outputs)
        if options:
            made.customOptions = np.frombuffer(options, np.uint8)
        self.graph.operators.append(made)

    def real(self, index: int, name: str) -> int:
        """The tensor as float32.

        Raises:
            TailError: it is neither float32 nor int8.
        """
        tensor = self.graph.tensors[index]
        if tensor.type == INTEGER:
            return self.add("DEQUANTIZE", [index], name, self.shape(index))
        if tensor.type != FLOAT:
            raise TailError(
                f"{_text(tensor.name)}: expected int8 or float32, received type {tensor.type} of the schema."
            )
        return index

    def replace(self, gone: Sequence[str], made: Mapping[str, int]) -> None:
        """Puts other outputs behind those that stay, in the signature, too."""
        numbers = [self.outputs[name] for name in gone]
        self.graph.outputs = [index for index in self.graph.outputs if index not in numbers] + list(made.values())
        for signature in self.model.signatureDefs or []:
            kept = [entry for entry in signature.outputs if entry.tensorIndex not in numbers]
            signature.outputs = kept + [_entry(name, index) for name, index in made.items()]

    def fix_batch(self) -> None:
        """Inputs of one image: a file that says so is not resized to a batch that the op refuses."""
        for index in self.graph.inputs:
            self.graph.tensors[index].shapeSignature = None

    def _code(self, operator: str) -> int:
        if operator not in self._codes:
            made = schema.OperatorCodeT()
            made.builtinCode = made.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
            made.version, made.customCode = VERSIONS[operator], POSTPROCESS if operator == "CUSTOM" else None
            self.model.operatorCodes.append(made)
            self._codes[operator] = len(self.model.operatorCodes) - 1
        return self._codes[operator]


def _entry(name: str, index: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, index
    return made


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
