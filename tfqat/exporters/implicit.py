"""Implicit mode: the files from which TensorRT up to 10 builds an INT8 engine without Q/DQ nodes.

The float ONNX, the calibration cache beside it, and the layers that must not run in INT8.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tfqat.core.encoding import Encodings
from tfqat.errors import TfqatError
from tfqat.exporters import cache, coverage, layer_precisions, onnx_file, onnx_float, onnx_qdq, requantization
from tfqat.exporters.exportable import Exportable, Written
from tfqat.exporters.options import Options
from tfqat.exporters.registry import ALWAYS, FORMATS

MODEL, PRECISIONS = "model.onnx", "layer_precisions.txt"


def check(options: Options) -> None:
    """Refuses options before anything is computed.

    Raises:
        TfqatError: a TensorRT version, opset or file name that cannot be.
    """
    cache.version_number(options.tensorrt_version)
    onnx_float.check_opset(options.opset)
    own = {name for form in FORMATS.values() for role, name in form.files.items() if role != "cache"}
    if options.cache_name in own | set(ALWAYS.values()):
        raise TfqatError(f"The cache cannot be called {options.cache_name!r}: that is another file of an export.")


def write(
    exportable: Exportable, told: Encodings, folder: Path, options: Options, precision: str = layer_precisions.FLOAT
) -> Written:
    """Writes the three files into ``folder``.

    Args:
        exportable: the model.
        told: its Encodings in names of the float ONNX.
        folder: an existing folder.
        options: how.
        precision: of the layers that must not run in INT8: ``fp32``, or ``fp16`` on a DLA, which has no other.

    Raises:
        TfqatError: what a file cannot hold.
    """
    _check_bits(told)
    moved = requantization.errors(exportable.onnx, told)
    covered = coverage.cover(exportable.onnx, told.activations, told.float_ops)
    onnx_file.save(exportable.onnx, folder / MODEL)
    cache.write(folder / options.cache_name, told.activations, options.tensorrt_version)
    layer_precisions.write(folder / PRECISIONS, told.float_ops, precision)
    report = {"coverage": asdict(covered), "requantization_steps": moved, "tensors": exportable.renamed}
    lines = [coverage.describe(covered, told.float_ops), requantization.describe(moved)]
    return Written(_files(options), report, "\n".join(line for line in lines if line), told)


def _check_bits(told: Encodings) -> None:
    """Raises TfqatError for activations of other than 8 bits: TensorRT would let 256 integers of that scale pass."""
    others = [f"{name} ({e.scheme.bits})" for name, e in onnx_qdq.trained(told).items() if e.scheme.bits != 8]
    if others:
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        raise TfqatError(
            f"TensorRT runs INT8 activations of 8 bits, and {len(others)} tensors have others: "
            f"{', '.join(others[:8])}{more}. Prepare the model without activation_bits for them."
        )


def reader(options: Options) -> str:
    """Which TensorRT reads the files."""
    number = cache.version_number(options.tensorrt_version)
    too_new = number >= 110000
    return "TensorRT 8 to 10" + ("; not the chosen 11 or later, which have no calibrators" if too_new else "")


def _files(options: Options) -> dict[str, tuple[str, str]]:
    name, versions = options.cache_name, reader(options)
    command = (
        f"trtexec --onnx={MODEL} --int8 --calib={name} --precisionConstraints=obey "
        f"--layerPrecisions=$(cat {PRECISIONS})"
    )
    return {
        "onnx": (MODEL, f"{versions}: {command}"),
        "cache": (name, f"{versions}, made for {options.tensorrt_version}; beside {MODEL}"),
        "layer_precisions": (PRECISIONS, f"trtexec --layerPrecisions, beside {name}; empty where no layer is float"),
    }
