"""TFLite runner: a flatbuffer in LiteRT's interpreter, fed and read as real numbers or as the file's own integers.

The interpreter is the one that a user gets who asks for nothing (XNNPACK where it has a kernel, else TFLite's own). Its
rounding is also the one nearest to the trained model's; see verification.tflite_blocks for figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfqat.verification.runner import RunError, named_inputs

SMALLEST_FILE = 8  # an offset and the identifier
IDENTIFIER = b"TFL3"


class TfliteRunner:
    """One loaded model.

    Attributes:
        inputs, outputs: names of the file's input and output tensors, in its order.
        input_shapes: the sizes that the file fixes; None for an open one, and for the batch, which can be any.
    """

    def __init__(self, data: bytes, threads: int | None = None) -> None:
        if len(data) < SMALLEST_FILE or data[4:8] != IDENTIFIER:
            raise RunError(f"These {len(data)} bytes are no TFLite file: expected {IDENTIFIER!r} at byte 4.")
        try:
            self._interpreter = Interpreter(model_content=data, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise RunError(f"LiteRT does not load the model: {error}") from error
        self._inputs = {entry["name"]: entry for entry in self._interpreter.get_input_details()}
        self._outputs = {entry["name"]: entry for entry in self._interpreter.get_output_details()}
        self.inputs, self.outputs = tuple(self._inputs), tuple(self._outputs)
        signatures = [entry["shape_signature"] for entry in self._inputs.values()]
        self.input_shapes = [
            (None, *(None if size < 0 else int(size) for size in signature[1:])) for signature in signatures
        ]

    def run(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Input name -> float array in (any integers where the file's input has no scale), output name -> float out.

        Raises:
            RunError: an input is missing or has another shape.
        """
        given = {name: quantized(self._inputs[name], values[name]) for name in self._known(values)}
        found = self.run_integers(given)
        return {name: dequantized(self._outputs[name], value) for name, value in found.items()}

    def run_integers(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Input name -> array of the file's own type in, output name -> array of the file's own type out.

        Raises:
            RunError: an input is missing or has another shape.
        """
        given = {name: values[name] for name in self._known(values)}
        try:
            self._resize(given)
            for name, value in given.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], np.ascontiguousarray(value))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            shapes = {name: value.shape for name, value in given.items()}
            raise RunError(f"LiteRT does not run the model on inputs {shapes}: {error}") from error
        return {name: self._interpreter.get_tensor(entry["index"]) for name, entry in self._outputs.items()}

    def predict(self, batches: Iterable[Any]) -> list[np.ndarray]:
        """The outputs over batches of inputs (an array, a sequence in the model's order, or a mapping)."""
        parts = [list(self.run(self.named(batch)).values()) for batch in batches]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def named(self, batch: Any) -> dict[str, np.ndarray]:
        """A batch as input name -> array."""
        return named_inputs(batch, self.inputs)

    def _known(self, values: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        missing = [name for name in self.inputs if name not in values]
        if missing:
            raise RunError(f"The model's inputs {missing} are missing; received {sorted(values)}.")
        return self.inputs

    def _resize(self, values: Mapping[str, np.ndarray]) -> None:
        """Makes room for the values; nothing happens where their shapes are those of the call before."""
        changed = False
        for name, value in values.items():
            entry = self._inputs[name]
            if tuple(value.shape) != tuple(entry["shape"]):
                self._interpreter.resize_tensor_input(entry["index"], list(value.shape), strict=True)
                entry["shape"], changed = value.shape, True
        if changed:
            self._interpreter.allocate_tensors()


def quantized(entry: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """Real numbers as a tensor's integers: rounded half to even, clipped; as its type where it has no scale."""
    scale, zero_point = entry["quantization"]
    dtype = np.dtype(entry["dtype"])
    if not scale:
        return np.asarray(values, dtype)
    limits = np.iinfo(dtype)
    steps = np.rint(np.asarray(values, np.float32) / np.float32(scale)) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def dequantized(entry: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """A tensor's integers as real numbers, float32; unchanged where it has no scale."""
    scale, zero_point = entry["quantization"]
    if not scale:
        return values
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
