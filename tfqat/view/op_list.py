"""Op list: the ops that a viewing has found so far, each under a name of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras

from tfqat.graph.graph import Op
from tfqat.view.batch import without_batch
from tfqat.view.part import Part
from tfqat.view.parts import parts_of
from tfqat.view.scope import clean


class OpList:
    """Ops in the order of their calls.

    Attributes:
        ops: all so far.
        shapes, dtypes: of inputs and results, by name.
        batched: whether the ops that are added are of a trace with a stand-in for the batch's size.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.batched = False
        self._calls: dict[str, int] = {}
        self._used: set[str] = set()
        self._layer_names: dict[Any, str] = {}

    def add_input(self, tensor: keras.KerasTensor, wanted: str) -> str:
        """The name of an input of the model."""
        name = self._unique(clean(wanted))
        self.shapes[name], self.dtypes[name] = tuple(tensor.shape), str(tensor.dtype)
        return name

    def layer_name(self, key: Any, wanted: str) -> str:
        """The name of the layer with this key: the wanted one at its first call, made unique."""
        if key not in self._layer_names:
            self._layer_names[key] = self._unique(wanted)
        return self._layer_names[key]

    def append(self, whole: Op, results: Iterable[keras.KerasTensor]) -> list[str]:
        """Splits a call into its parts and appends them; the names of its results."""
        shapes = [self.shapes[name] for name in whole.inputs]
        pieces: list[Op] = []
        for part in parts_of(whole, shapes):
            reads = (pieces[index].outputs[0] if index < 0 else whole.inputs[index] for index in part.reads)
            pieces.append(self._append(part, tuple(reads), list(results)))
        return list(pieces[-1].outputs)

    def _append(self, part: Part, inputs: tuple[str, ...], results: list[keras.KerasTensor]) -> Op:
        name = self._call_name(part.op.layer_name)
        outputs = (name, *(f"{name}/out{i}" for i in range(1, len(results))))
        op = replace(part.op, name=name, inputs=inputs, outputs=outputs)
        for output, tensor in zip(outputs, results, strict=True):
            shape = tuple(tensor.shape) if part.shape is None else part.shape
            shape = without_batch(shape) if self.batched else shape
            self.shapes[output], self.dtypes[output] = shape, str(tensor.dtype)
        self.ops.append(op)
        return op

    def _call_name(self, layer_name: str) -> str:
        number = self._calls.get(layer_name, 0)
        self._calls[layer_name] = number + 1
        if number:
            return self._unique(f"{layer_name}/{number}")
        return layer_name if layer_name in self._used else self._unique(layer_name)

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._used:
            name, number = f"{wanted}_{number}", number + 1
        self._used.add(name)
        return name
