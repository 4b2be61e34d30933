"""Spelling: an op written as the several that a device runs it as, each with a range of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import keras

from tfqat.graph.graph import Graph, Op, Ref, Source
from tfqat.graph.operation import class_of


def spell_out(graph: Graph, kinds: Collection[str]) -> Graph:
    """The graph with each op of these kinds as its parts; the last has the op's name.

    ``silu(x) = x * sigmoid(x)``, ``hard_sigmoid(x) = relu6(x + 3) / 6``, ``hard_silu(x) = x * hard_sigmoid(x)``,
    ``average(x, y) = (x + y) * 1/2``.
    """
    ops: list[Op] = []
    shapes, dtypes = dict(graph.shapes), dict(graph.dtypes)
    for op in graph.ops:
        spelled = op.kind in kinds and op.kind in _SPELLINGS
        parts = _SPELLINGS[op.kind](op) if spelled else [op]
        ops.extend(parts)
        for part in parts:
            shapes.setdefault(part.outputs[0], graph.shapes[op.outputs[0]])
            dtypes.setdefault(part.outputs[0], graph.dtypes[op.outputs[0]])
    return replace(graph, ops=tuple(ops), shapes=shapes, dtypes=dtypes)


def _silu(op: Op) -> list[Op]:
    gate = _part(op, "sigmoid", op.inputs[0], keras.layers.Activation, {"activation": "sigmoid"})
    return [gate, _gated(op, gate)]


def _hard_sigmoid(op: Op) -> list[Op]:
    return _hard_gate(op, op.name)


def _hard_silu(op: Op) -> list[Op]:
    gate = _hard_gate(op, f"{op.name}/gate")
    return [*gate, _gated(op, gate[-1])]


def _hard_gate(op: Op, name: str) -> list[Op]:
    shift = _part(op, "shift", op.inputs[0], keras.layers.Rescaling, {"scale": 1.0, "offset": 3.0})
    clip = _part(op, "relu6", shift.outputs[0], keras.layers.ReLU, {"max_value": 6.0})
    last = _part(op, "gate", clip.outputs[0], keras.layers.Rescaling, {"scale": 1 / 6, "offset": 0.0})
    return [shift, clip, replace(last, name=name, layer_name=name, outputs=(name,))]


def _average(op: Op) -> list[Op]:
    if len(op.inputs) == 1:
        return [op]  # a mean over axes
    total, sums = op.inputs[0], list[Op]()
    for number, tensor in enumerate(op.inputs[1:], 1):
        name = f"{op.name}/sum" if number == len(op.inputs) - 1 else f"{op.name}/sum/pair{number}"
        source = Source(keras.layers.Add, _dtype(op), (), (op.source.key, op.name, name))
        sums.append(Op(name, name, "add", (total, tensor), (name,), source, ([Ref(0), Ref(1)],)))
        total = name
    share = Source(class_of("multiply"), {}, (), (op.source.key, op.name, "share"))
    args = (Ref(0), 1 / len(op.inputs))
    return [*sums, replace(op, kind="multiply_constant", inputs=(total,), source=share, args=args, kwargs={})]


def _gated(op: Op, gate: Op) -> Op:
    """``x * gate(x)``, under the activation's own name."""
    source = Source(keras.layers.Multiply, _dtype(op), (), (op.source.key, op.name, "gated"))
    return replace(
        op,
        kind="multiply",
        inputs=(op.inputs[0], gate.outputs[0]),
        source=source,
        args=([Ref(0), Ref(1)],),
        kwargs={},
    )


def _part(op: Op, word: str, tensor: str, cls: type, config: Mapping[str, Any]) -> Op:
    name = f"{op.name}/{word}"
    source = Source(cls, {**_dtype(op), **config}, (), (op.source.key, op.name, word))
    return Op(name, name, _KINDS[cls](config), (tensor,), (name,), source)


def _dtype(op: Op) -> dict[str, Any]:
    return {"dtype": op.source.config["dtype"]} if "dtype" in op.source.config else {}


_KINDS: Mapping[type, Callable[[Mapping[str, Any]], str]] = {
    keras.layers.Activation: lambda config: config["activation"],
    keras.layers.ReLU: lambda config: "relu6",
    keras.layers.Rescaling: lambda config: "rescaling",
}
_SPELLINGS: Mapping[str, Callable[[Op], list[Op]]] = {
    "silu": _silu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "average": _average,
}
