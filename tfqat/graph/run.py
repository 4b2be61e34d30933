"""Run: a viewed flat model computed op by op, with a hook on every op's outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import keras
from keras import tree

from tfqat.errors import TfqatError
from tfqat.graph.build import fill
from tfqat.graph.constants import constants_in
from tfqat.graph.graph import Graph, Op

Visit = Callable[[Op, list[Any]], list[Any]]


def run(
    graph: Graph, values: Mapping[str, Any], visit: Visit | None = None, keep: Collection[str] | None = None
) -> dict[str, Any]:
    """The tensors of the graph, computed at inference by the layers of the model that was viewed.

    Args:
        graph: the view of a flat model (one made by tfqat: nothing nested, no fused activations).
        values: input tensor name -> value.
        visit: called with each op and its outputs; what it returns takes their place.
        keep: names of the tensors to return; the others are dropped after their last reader. None keeps all.
    """
    tensors = dict(values)
    last_reader = {tensor: op.name for op in graph.ops for tensor in op.inputs}
    for op in graph.ops:
        outputs = run_op(op, tensors)
        outputs = visit(op, outputs) if visit else outputs
        tensors.update(zip(op.outputs, outputs, strict=True))
        if keep is not None:
            for tensor in {*op.inputs, *op.outputs}:
                if tensor not in keep and last_reader.get(tensor, op.name) == op.name:
                    tensors.pop(tensor, None)
    return tensors


def run_op(op: Op, tensors: dict[str, Any]) -> list[Any]:
    """The outputs of one op at inference; ``tensors`` holds its inputs, by name.

    Raises:
        TfqatError: the graph is no view of a flat model.
    """
    if op.source.built is None:
        raise TfqatError(f"Op {op.name!r} has no layer of its own: only the view of a flat model can be run.")
    args, kwargs = fill(op, tensors)
    # Said aloud, as a model's own call does: layers that augment images take silence for training.
    if getattr(op.source.built, "_call_has_training_arg", False):
        kwargs["training"] = False
    return list(tree.flatten(op.source.built(*args, **kwargs)))


def constant_values(graph: Graph, visit: Visit | None = None) -> dict[str, Any]:
    """The tensors of the graph that depend on no input; arguments as of ``run``."""
    constants = constants_in(graph)
    ops = tuple(op for op in graph.ops if constants.issuperset(op.outputs))
    # A weight is called on a tensor that it does not look at.
    others = {tensor: keras.ops.zeros((1,)) for op in ops for tensor in op.inputs if tensor not in constants}
    found = run(replace(graph, ops=ops), others, visit)
    return {tensor: value for tensor, value in found.items() if tensor in constants}
