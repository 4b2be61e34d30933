"""Form: a prepared model with some of its blocks on integers and the others in float, run on its Graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from tfqat.analysis.blocks import is_kernel, is_quantizer
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Op, bypass, replace_ops
from tfqat.graph.run import run
from tfqat.rewrite.absorbed import release
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.quantizer import RangeEstimator
from tfqat.rewrite.split import without_quantizers
from tfqat.view.view import view

Tensors = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Forms:
    """A model whose kernels and Quantizers can be switched one by one, without building a model for it.

    Attributes:
        graph: the view with all Quantizers and quantized kernels; no ReLU6 is absorbed, no range observed.
        plain: op name -> the stock layer in place of a quantized one, with the float kernel.
    """

    graph: Graph
    plain: Mapping[str, Any]

    @cached_property
    def switches(self) -> frozenset[str]:
        """Names of all ops that round."""
        return self.kernels | frozenset(op.name for op in self.graph.ops if is_quantizer(op))

    @cached_property
    def kernels(self) -> frozenset[str]:
        """Names of the ops that round their kernel."""
        return frozenset(op.name for op in self.graph.ops if is_kernel(op))

    def form(self, on: Collection[str]) -> Graph:
        """The model in which the ops named in ``on`` round, and no others."""

        def switched(op: Op) -> Op:
            if op.name not in self.kernels or op.name in on:
                return op
            return replace(op, source=replace(op.source, built=self.plain[op.name]))

        off = [op.name for op in self.graph.ops if is_quantizer(op) and op.name not in on]
        return bypass(replace_ops(self.graph, switched), off)


def forms_of(model: QuantizedModel) -> Forms:
    """The Forms of a prepared model; the model itself is untouched."""
    graph = view(model)
    observers = [op.name for op in graph.ops if isinstance(op.source.built, RangeEstimator) and not is_quantizer(op)]
    plain = view(build(without_quantizers(graph)))
    return Forms(bypass(release(graph), observers), {op.name: op.source.built for op in plain.ops})


@dataclass(frozen=True, eq=False)
class Rerun:
    """What of a form has to be computed again, where another form's tensors are at hand.

    Attributes:
        form: the form.
        ops: its ops that differ from the other's, and all behind them.
        reads: tensors of the other form that they, or the outputs, take.
    """

    form: Graph
    ops: tuple[Op, ...]
    reads: frozenset[str]

    def outputs(self, known: Tensors) -> list[np.ndarray]:
        """The form's outputs, from the other form's tensors."""
        given = {name: known[name] for name in self.reads}
        found = run(replace(self.form, ops=self.ops), given, keep=self.form.outputs)
        return as_arrays(found[name] for name in self.form.outputs)


def rerun(form: Graph, known: Graph) -> Rerun:
    """What of ``form`` is not computed by ``known``, another form of the same model."""
    before = {op.name: op for op in known.ops}
    ops: list[Op] = []
    fresh: set[str] = set()
    for op in form.ops:
        other = before.get(op.name)
        same = other is not None and other.inputs == op.inputs and other.source.built is op.source.built
        if not same or not fresh.isdisjoint(op.inputs):
            ops.append(op)
            fresh.update(op.outputs)
    reads = {tensor for op in ops for tensor in op.inputs} | set(form.outputs)
    return Rerun(form, tuple(ops), frozenset(reads - fresh))


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Tensors of the Keras backend."""
    return {name: keras.ops.convert_to_tensor(value) for name, value in arrays.items()}


def as_arrays(tensors: Any) -> list[np.ndarray]:
    """Arrays of the Keras backend's tensors."""
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]
