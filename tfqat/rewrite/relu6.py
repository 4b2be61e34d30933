"""ReLU6: activations without an upper bound made into ReLU6, whose range INT8 covers evenly (arXiv:1704.04861)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from difflib import get_close_matches

import keras

from tfqat.errors import TfqatError
from tfqat.graph.constants import constants_in
from tfqat.graph.graph import Graph, Op, Source, replace_ops
from tfqat.graph.kinds import ACTIVATIONS
from tfqat.graph.rules import Rule, decide
from tfqat.graph.tail import find_tail

# What NVIDIA TAO converts.
DEFAULT = ("relu", "leaky_relu", "prelu", "elu")


def to_relu6(graph: Graph, kinds: Collection[str], rules: tuple[Rule, ...]) -> tuple[Graph, tuple[str, ...]]:
    """The graph with activations of these kinds as ReLU6, but for those that give a model output; a line a change.

    What is computed from weights alone (a softplus that keeps one positive) is no activation and stays.

    Raises:
        TfqatError: a kind that is no activation.
    """
    _check(kinds)
    tail = find_tail(graph)
    outputs, constants = tail.ops | tail.ends, constants_in(graph)
    may = [op for op in graph.ops if op.name not in outputs and constants.isdisjoint(op.outputs)]
    chosen = {op.name: op for op in may if _asked(op, kinds, rules)}
    changes = tuple(f"{op.name}: {op.kind} -> relu6" for op in chosen.values())
    return replace_ops(graph, lambda op: _converted(op) if op.name in chosen else op), changes


def _asked(op: Op, kinds: Collection[str], rules: tuple[Rule, ...]) -> bool:
    asked = decide(rules, op.name, "relu6")
    if op.kind not in ACTIVATIONS or op.kind == "relu6" or len(op.inputs) != 1:
        return False
    return asked[0] if asked else op.kind in kinds


def _converted(op: Op) -> Op:
    dtype = {key: op.source.config[key] for key in ("dtype",) if key in op.source.config}
    source = Source(keras.layers.ReLU, {"max_value": 6.0, **dtype}, (), (op.source.key, "relu6"))
    return replace(op, kind="relu6", source=source, args=op.args[:1], kwargs={})


def _check(kinds: Collection[str]) -> None:
    valid = sorted(ACTIVATIONS - {"relu6", "linear"})
    for kind in kinds:
        if kind not in valid:
            near = get_close_matches(str(kind), valid, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TfqatError(f"relu6: {kind!r} is no activation; expected some of {', '.join(valid)}.{hint}")
