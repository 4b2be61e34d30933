"""Runner: an ONNX model in onnxruntime, on CPU, with its graph optimizations off unless asked for.

By default onnxruntime quantizes the float bias of a Q/DQ model and so moves elements by a step (measured); judging
parity needs the model as the file says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tfqat.errors import TfqatError


class RunError(TfqatError):
    """A model that onnxruntime does not run, or inputs that do not fit it."""


class Runner:
    """One loaded model."""

    def __init__(self, model: onnx.ModelProto, optimize: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        options.log_severity_level = 3
        errors = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            data = model.SerializeToString()
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except (errors.Fail, errors.InvalidGraph, errors.NotImplemented, errors.InvalidArgument) as error:
            raise RunError(f"onnxruntime does not load the model: {error}") from error
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.input_types = {entry.name: _type(entry.type) for entry in self._session.get_inputs()}
        self.input_shapes = tuple(_sizes(entry.shape) for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def run(self, values: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Output name -> value.

        Raises:
            RunError: an input is missing or has another shape or type.
        """
        names = list(self.outputs if outputs is None else outputs)
        errors = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            return dict(zip(names, self._session.run(names, dict(values)), strict=True))
        except (errors.InvalidArgument, errors.Fail, errors.RuntimeException, ValueError) as error:
            raise RunError(f"onnxruntime does not run the model on inputs {_shapes(values)}: {error}") from error

    def predict(self, batches: Iterable[Any]) -> list[np.ndarray]:
        """The outputs over batches of inputs (an array, a sequence in the model's order, or a mapping)."""
        parts = [list(self.run(self.named(batch)).values()) for batch in batches]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def named(self, batch: Any) -> dict[str, np.ndarray]:
        """A batch as input name -> array."""
        return named_inputs(batch, self.inputs)


def named_inputs(batch: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """A batch (an array, a sequence in the order of ``names``, or a mapping) as name -> array.

    Raises:
        RunError: the count or the names do not fit.
    """
    if isinstance(batch, Mapping) and set(batch) == set(names):
        return {name: np.asarray(batch[name]) for name in names}
    if isinstance(batch, Mapping):
        raise RunError(f"The model has the inputs {list(names)}, received {sorted(map(str, batch))}.")
    values = list(batch) if isinstance(batch, list | tuple) else [batch]
    if len(values) != len(names):
        raise RunError(f"The model has {len(names)} inputs {list(names)}, received {len(values)}.")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _type(text: str) -> np.dtype:
    """``tensor(int64)`` as NumPy has it."""
    word = text.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(word, word))


def _sizes(shape: Sequence[Any]) -> tuple[int | None, ...]:
    """The sizes that the file fixes; None for a named or open one."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _shapes(values: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in values.items()}
