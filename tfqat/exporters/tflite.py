"""TFLite as a format: one flatbuffer that computes with integers only, and on request the same bytes as C source.

The flatbuffer is written from the float model and its Encodings, not by a converter, so its scales are those that were
learned and its tensors have the model's names. Source: TensorFlow Lite 8-bit quantization specification.
"""

from __future__ import annotations

from pathlib import Path

from tfqat.core.files import write_bytes
from tfqat.core.listing import some
from tfqat.exporters.exportable import Exportable, Written
from tfqat.exporters.options import Options
from tfqat.exporters.tflite_graph import c_array
from tfqat.exporters.tflite_graph.build import TfliteModel, build

FILE, C_SOURCE, C_HEADER = "model.tflite", "model_data.c", "model_data.h"
READER = "LiteRT (TensorFlow Lite) and TFLite Micro: int8 in, int8 out"
FIXED_REASON = "scale and zero point fixed by the TensorFlow Lite 8-bit quantization specification"


def check(options: Options) -> None:
    """Refuses nothing: no option makes a TFLite file impossible before the model is seen."""


def write(exportable: Exportable, folder: Path, options: Options) -> Written:
    """Writes ``model.tflite``, with ``c_array`` also ``model_data.c`` and ``model_data.h``, into ``folder``.

    Raises:
        TfliteError: the model has ops, inputs or scales that TFLite cannot run on integers.
    """
    graph, learnt = exportable.graph, exportable.learnt
    model = build(graph, learnt, options.input_names, options.output_names)
    write_bytes(folder / FILE, model.data)
    files = {"tflite": (FILE, READER)}
    if options.c_array:
        c_array.write(folder, model.data, C_SOURCE, C_HEADER)
        files["c_source"] = (C_SOURCE, f"a C compiler: the bytes of {FILE}")
        files["c_header"] = (C_HEADER, "a C or C++ compiler, beside the source")
    return Written(files, {"tflite": _report(model)}, _message(model), learnt)


def _report(model: TfliteModel) -> dict[str, object]:
    fixed = {
        tensor: {"scale": scale, "zero_point": zero_point, "reason": FIXED_REASON}
        for tensor, (scale, zero_point) in model.fixed.items()
    }
    return {
        "float_tensors": {},
        "fixed_scales": fixed,
        "derived_scales": dict(model.derived),
        "requantized": list(model.requantized),
        "operators": dict(model.operators),
    }


def _message(model: TfliteModel) -> str:
    count = sum(model.operators.values())
    lines = [f"{FILE}: {count} operators, all on integers; int8 inputs and outputs, no float tensor."]
    if model.fixed:
        lines.append(f"  scale fixed by the TFLite specification: {some(list(model.fixed))}")
    if model.requantized:
        lines.append(f"  requantized for a reader on another grid: {some(model.requantized)}")
    return "\n".join(lines)
