"""Statistics: the rounding of each tensor and kernel of a prepared model, from one run of its float form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfqat.analysis.blocks import Block, is_quantizer
from tfqat.analysis.forms import Forms, as_tensors
from tfqat.analysis.report import KernelReport
from tfqat.analysis.samples import Samples
from tfqat.analysis.tensors import Rounding, TensorReport, channels_of, rounding_of
from tfqat.calibration.histogram import NotFinite
from tfqat.errors import TfqatError
from tfqat.graph.graph import Op
from tfqat.graph.kinds import KERNEL_AXES
from tfqat.graph.run import run

# Samples at a time: few enough that no tensor is large.
ROWS = 128


@dataclass(frozen=True, eq=False)
class Statistics:
    """``tensors``: name of a Quantizer's op -> its tensor's report; ``bytes_each``: of all tensors of one sample."""

    tensors: Mapping[str, TensorReport]
    kernels: Mapping[str, KernelReport]
    bytes_each: float

    def of(self, block: Block) -> tuple[KernelReport | None, tuple[TensorReport, ...]]:
        """What is known of a block's kernel and tensors."""
        kernel = self.kernels[block.kernel] if block.kernel else None
        return kernel, tuple(self.tensors[name] for name in block.quantizers)


def statistics_of(forms: Forms, samples: Samples, rows: int = ROWS) -> Statistics:
    """The Statistics over some samples, ``rows`` at a time.

    Raises:
        TfqatError: a tensor has NaN or infinite values.
    """
    found = {
        op.name: (op.inputs[0], Rounding(op.source.built.encoding())) for op in forms.graph.ops if is_quantizer(op)
    }
    size = 0

    def note(values: Mapping[str, Any]) -> None:
        for tensor, rounding in found.values():
            if tensor in values:
                _add(tensor, rounding, values[tensor])

    def visit(op: Op, outputs: list[Any]) -> list[Any]:
        nonlocal size
        values = {t: _array(value) for t, value in zip(op.outputs, outputs, strict=True)}
        size += sum(array.nbytes for array in values.values())
        note(values)
        return outputs

    for part in samples.parts(rows):
        note(part.inputs)
        run(forms.form(()), as_tensors(part.inputs), visit, keep=())
    reports = {name: rounding.report(tensor) for name, (tensor, rounding) in found.items()}
    return Statistics(reports, {name: _kernel(forms.graph.op(name)) for name in forms.kernels}, size / len(samples))


def _array(value: Any) -> np.ndarray:
    # NumPy makes no array of TensorFlow's bfloat16 without an axis, such as a sum of weights.
    return keras.ops.convert_to_numpy(value if len(value.shape) else keras.ops.reshape(value, (1,)))


def _add(tensor: str, rounding: Rounding, values: Any) -> None:
    try:
        rounding.add(values)
    except NotFinite as error:
        raise TfqatError(
            f"Analysis: tensor {tensor!r} has NaN or infinite values; check the data and the weights."
        ) from error


def _kernel(op: Op) -> KernelReport:
    values, encoding = keras.ops.convert_to_numpy(op.source.values[0]), op.source.built.kernel_encoding()
    return KernelReport(rounding_of(values, encoding).report(op.name), channels_of(values, KERNEL_AXES[op.kind]))
