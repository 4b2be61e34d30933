"""Q/DQ ONNX as a format: one file with Q/DQ nodes, for any reader of quantized ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx

from tfqat.exporters import onnx_file, onnx_float, onnx_qdq
from tfqat.exporters.exportable import Exportable, Written
from tfqat.exporters.options import Options

FILE = "model.qdq.onnx"


def check(options: Options) -> None:
    """Refuses an opset that cannot be written."""
    onnx_float.check_opset(options.opset)


def write(exportable: Exportable, folder: Path, options: Options) -> Written:
    """Writes ``model.qdq.onnx`` into ``folder``.

    Raises:
        TfqatError: Encodings that Q/DQ nodes cannot express.
    """
    model = onnx_qdq.insert(exportable.onnx, exportable.told, options.int8_weights, clip=True)
    onnx.checker.check_model(model, full_check=True)
    onnx_file.save(model, folder / FILE)
    kernels = "kernels as int8" if options.int8_weights else "kernels as float32 behind Q/DQ"
    pairs = len(onnx_qdq.scales_of(model))
    told = exportable.told
    floats = [f"  float: {node} ({reason})" for node, reason in told.float_ops.items()]
    message = "\n".join([f"{FILE}: {pairs} tensors with Q/DQ, {kernels}.", *floats])
    files = {"qdq_onnx": (FILE, f"any reader of Q/DQ ONNX, opset {options.opset}")}
    return Written(files, {"tensors": exportable.renamed, "int4": onnx_qdq.int4_kernels(told)}, message, told)
