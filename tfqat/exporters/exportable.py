"""Exportable: one model as exporters take it; what several formats need of it is made once, when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import keras
import onnx

from tfqat.core.encoding import Encoding, Encodings
from tfqat.exporters import carry, onnx_float
from tfqat.exporters.onnx_names import Named
from tfqat.exporters.options import Options
from tfqat.graph.graph import Graph
from tfqat.view.view import view

# A Q/DQ ONNX in, the Encodings of tensors that have none out.
Fill = Callable[[onnx.ModelProto, Encodings], Mapping[str, Encoding]]


@dataclass(frozen=True, eq=False)
class Exportable:
    """One model, ready for any format.

    Attributes:
        model: the float model: stock layers, flat, BatchNorm folded, kernels on their grids.
        learnt: its Encodings, in names of the view of ``model``.
        options: how to export.
        fill: finds scales for tensors that were never trained against, by running the trained model; None where no
            format asks for them.
    """

    model: keras.Model
    learnt: Encodings
    options: Options
    fill: Fill | None = None

    @cached_property
    def graph(self) -> Graph:
        """The view of the float model."""
        return view(self.model)

    @cached_property
    def named(self) -> Named:
        """The float ONNX, and which of its tensors is which of Keras'."""
        names = self.options.input_names, self.options.output_names
        return onnx_float.convert(self.model, self.options.opset, *names)

    @property
    def onnx(self) -> onnx.ModelProto:
        """The float ONNX."""
        return self.named.model

    @cached_property
    def told(self) -> Encodings:
        """The Encodings in names of the float ONNX, carried on to tensors that the converter made."""
        return carry.to_onnx(self.named, self.learnt)

    @property
    def renamed(self) -> dict[str, str]:
        """Keras' tensor -> ONNX tensor, where the names differ."""
        return {keras_name: name for keras_name, name in self.named.tensors.items() if keras_name != name}


@dataclass(frozen=True)
class Written:
    """What one format wrote.

    Attributes:
        files: role -> (file name, which program reads it and how).
        report: what the manifest tells of it.
        message: what the user is told.
        encodings: the Encodings as the files have them.
    """

    files: Mapping[str, tuple[str, str]]
    report: Mapping[str, object]
    message: str
    encodings: Encodings


def filled(told: Encodings, more: Mapping[str, Encoding], order: tuple[str, ...]) -> Encodings:
    """``told`` with the Encodings of further tensors, in ``order``; those that it has stay."""
    known = {**more, **told.activations}
    return replace(told, activations={name: known[name] for name in order if name in known})
