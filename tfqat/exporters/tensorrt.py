"""TensorRT on GPUs: the files of implicit mode (up to 10.x) and the Q/DQ ONNX (8.0 and later, 11 included)."""

from __future__ import annotations

from pathlib import Path

from tfqat.exporters import implicit, qdq_onnx
from tfqat.exporters.exportable import Exportable, Written
from tfqat.exporters.options import Options


def check(options: Options) -> None:
    """Refuses options before anything is computed; see ``implicit.check``."""
    implicit.check(options)


def write(exportable: Exportable, folder: Path, options: Options) -> Written:
    """Writes all files that some TensorRT reads into ``folder``.

    Raises:
        TfqatError: what a file cannot hold.
    """
    first = implicit.write(exportable, exportable.told, folder, options)
    second = qdq_onnx.write(exportable, folder, options)
    name, _ = second.files["qdq_onnx"]
    lowest = 10 if options.int8_weights or second.report["int4"] else 8
    qdq = {"qdq_onnx": (name, f"TensorRT {lowest} and later, 11 included: trtexec --onnx={name} --int8")}
    return Written({**first.files, **qdq}, {**second.report, **first.report}, first.message, exportable.told)
