"""TensorRT on the DLA: float ONNX, a cache with a scale for every tensor, and the layers that must stay FP16.

What the model was trained with is kept; the other tensors (inside blocks, behind the last quantized layer) get scales
from a run of the trained model on calibration images. Masks of large numbers get none: what reads them stays FP16.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from tfqat.core.encoding import Encodings
from tfqat.errors import TfqatError
from tfqat.exporters import implicit, onnx_qdq
from tfqat.exporters.exportable import Exportable, Written, filled
from tfqat.exporters.onnx_masks import masks_of
from tfqat.exporters.options import Options

PRECISION = "fp16"  # a DLA has no float32


def check(options: Options) -> None:
    """Refuses options before anything is computed; see ``implicit.check``."""
    implicit.check(options)


def write(exportable: Exportable, folder: Path, options: Options) -> Written:
    """Writes the three files into ``folder``.

    Raises:
        TfqatError: no calibration images, a tensor that they give no scale, or what a file cannot hold.
    """
    if exportable.fill is None:
        raise TfqatError(
            "A DLA needs a scale for every tensor, also for those that were never trained against: give calibration "
            "images, `tfqat.export(..., calibration=dataset)`."
        )
    model, told = exportable.onnx, exportable.told
    more = exportable.fill(onnx_qdq.insert(model, told), told)
    complete = filled(told, more, tuple(float_tensors(model)))
    _check_complete(model, complete)
    kept = sum(encoding.origin != "calibrated" for encoding in told.activations.values())
    written = implicit.write(exportable, complete, folder, options, PRECISION)
    counts = f"{kept} scales as trained, {len(complete.activations) - kept} calibrated at export"
    masks = masks_of(model)
    counts += f", none for {len(masks)} masks of large numbers, which stay {PRECISION.upper()}" if masks else ""
    return Written(written.files, written.report, f"{written.message}\nDLA: {counts}.", complete)


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """The tensors that hold floats, constants aside, in the order in which they are computed."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*inferred.input, *inferred.value_info)}
    types |= {info.name: info.type.tensor_type.elem_type for info in inferred.output}
    names = [*(info.name for info in model.graph.input), *(name for node in model.graph.node for name in node.output)]
    return [name for name in names if name and types.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT]


def _check_complete(model: onnx.ModelProto, told: Encodings) -> None:
    masks = masks_of(model)
    missing = [name for name in float_tensors(model) if name not in told.activations and name not in masks]
    if missing:
        raise TfqatError(
            f"{len(missing)} tensors have no scale, which a DLA needs for all: {missing[:10]}. Give calibration images "
            f"that reach them."
        )
