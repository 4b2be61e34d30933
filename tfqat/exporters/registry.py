"""Format: a set of files for one kind of reader, written together; the table of all formats."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from tfqat.errors import TfqatError


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        module: where its ``check(options)`` and ``write(exportable, folder, options)`` are.
        files: role -> file name.
        text: who reads it.
        options: role of a file that is only written on request -> the option that asks for it.
        needs_data: whether its writing runs the trained model on calibration images.
        integers_only: whether it refuses a model of which a layer stays float.
    """

    module: str
    files: Mapping[str, str]
    text: str
    on_request: Mapping[str, str] | None = None
    needs_data: bool = False
    integers_only: bool = False


# The same whichever format writes them.
COMMON = frozenset({"onnx", "qdq_onnx"})
# Written with every format.
ALWAYS = {"encodings": "encodings.json", "manifest": "manifest.json"}

FORMATS: Mapping[str, Format] = {
    "tensorrt": Format(
        "tfqat.exporters.tensorrt",
        {
            "onnx": "model.onnx",
            "cache": "model.cache",
            "layer_precisions": "layer_precisions.txt",
            "qdq_onnx": "model.qdq.onnx",
        },
        "TensorRT: float ONNX with a calibration cache up to 10, Q/DQ ONNX from 8 on",
    ),
    "tensorrt_dla": Format(
        "tfqat.exporters.tensorrt_dla",
        {"onnx": "model.onnx", "cache": "model.cache", "layer_precisions": "layer_precisions.txt"},
        "TensorRT up to 10 on the DLA: float ONNX with a calibration cache that is complete",
        needs_data=True,
    ),
    "qdq_onnx": Format("tfqat.exporters.qdq_onnx", {"qdq_onnx": "model.qdq.onnx"}, "any reader of Q/DQ ONNX"),
    "tflite": Format(
        "tfqat.exporters.tflite",
        {"tflite": "model.tflite", "c_source": "model_data.c", "c_header": "model_data.h"},
        "LiteRT (TensorFlow Lite) and TFLite Micro, integers only",
        on_request={"c_source": "c_array", "c_header": "c_array"},
        integers_only=True,
    ),
    "aimet": Format(
        "tfqat.exporters.aimet",
        {"onnx": "model.onnx", "aimet": "model.encodings"},
        "Qualcomm's tools (AIMET encodings beside a float ONNX)",
    ),
}


def clash(chosen: Sequence[str]) -> str | None:
    """Two of these formats that write different things into one file, as a sentence; None where all go together."""
    writers: dict[str, str] = {}
    for name in chosen:
        for role, file in FORMATS[name].files.items() if name in FORMATS else ():
            if role not in COMMON and file in writers:
                return f"{writers[file]} and {name} both write {file}; export them into two folders"
            writers[file] = name
    return None


def exporter(name: str, allowed: Sequence[str]) -> ModuleType:
    """The module that writes the format ``name``, one of those that the model's target allows.

    Raises:
        TfqatError: there is no such format, or the target does not write it.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(str(name), FORMATS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(f"formats: there is no {name!r}.{hint} Expected some of {sorted(FORMATS)}.")
    if name not in allowed:
        raise TfqatError(
            f"formats: the model's target writes {sorted(allowed)}, received {name!r}. For that one, prepare or import "
            "the model for a target that writes it (`tfqat targets`)."
        )
    return importlib.import_module(FORMATS[name].module)
