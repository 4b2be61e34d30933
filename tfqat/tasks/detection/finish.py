"""Finish: the files of an export once more, with decoding and suppression behind their raw outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from tfqat.core.files import write_bytes
from tfqat.exporters import onnx_file
from tfqat.tails import onnx_nms, tensorrt_nms, tflite_nms
from tfqat.tails.tail import Tail

# Role -> file name and what reads it, as exports list their files.
Entries = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Finish:
    """One finished form of an exported file.

    Attributes:
        role: of the finished file.
        needs: roles that the export must have; the first is the file that is finished.
        name: of the finished file.
        text: what reads it.
        make: the bytes of the finished file.
        load: reads the finished file as ONNX; None where it is none.
    """

    role: str
    needs: tuple[str, ...]
    name: str
    text: str
    make: Callable[[Path, Tail], bytes]
    load: Callable[[Path], onnx.ModelProto] | None = None

    def fits(self, files: Mapping[str, object]) -> bool:
        """Whether the export has what this needs."""
        return all(role in files for role in self.needs)


def finish(folder: Path, files: Entries, tail: Tail) -> Entries:
    """Writes the finished forms of an export's ``files`` in ``folder`` beside them.

    Raises:
        TfqatError: outputs or settings that a tail cannot have.
    """
    made = {}
    for form in FORMS:
        if form.fits(files):
            write_bytes(folder / form.name, form.make(folder / files[form.needs[0]][0], tail))
            made[form.role] = (form.name, form.text)
    return made


def _tensorrt(path: Path, tail: Tail) -> bytes:
    return onnx_file.serialized(tensorrt_nms.with_nms(onnx_file.load(path), tail))


def _onnx(path: Path, tail: Tail) -> bytes:
    return onnx_file.serialized(onnx_nms.with_nms(onnx_file.load(path), tail))


def _tflite(path: Path, tail: Tail) -> bytes:
    return tflite_nms.with_nms(path.read_bytes(), tail)


FORMS = (
    Finish(
        "efficientnms_onnx",
        ("onnx", "cache"),
        "model.efficientnms.onnx",
        "model.onnx with TensorRT's plugin EfficientNMS_TRT behind it, beside the same cache and layer precisions",
        _tensorrt,
        tensorrt_nms.load,
    ),
    Finish(
        "efficientnms_qdq_onnx",
        ("qdq_onnx", "cache"),
        "model.qdq.efficientnms.onnx",
        "model.qdq.onnx with TensorRT's plugin EfficientNMS_TRT behind it",
        _tensorrt,
        tensorrt_nms.load,
    ),
    Finish(
        "nms_qdq_onnx",
        ("qdq_onnx",),
        "model.qdq.nms.onnx",
        "model.qdq.onnx with ONNX' NonMaxSuppression behind it: onnxruntime, and any reader of Q/DQ ONNX",
        _onnx,
        onnx_file.load,
    ),
    Finish(
        "nms_tflite",
        ("tflite",),
        "model.nms.tflite",
        "model.tflite with TFLite_Detection_PostProcess behind it, one image a run",
        _tflite,
    ),
)
