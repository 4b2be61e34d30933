"""Equalize: the channels of consecutive kernels brought to like ranges (cross-layer, arXiv:1906.04721, 4.1).

With ``f(s * x) = s * f(x)`` for ``s > 0``, as ReLU has it, ``W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1)`` for any
diagonal S. ``s_i = sqrt(r1_i * r2_i) / r2_i`` makes the ranges of channel i equal in both kernels, r1_i being max|w| of
output channel i of the first (its BatchNorm multiplied in) and r2_i that of input channel i of the second. ReLU6 is no
such f: ``min(x, 6)`` would have to become ``min(x, 6 / s_i)``, which no fused activation computes; it is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Op, Source, replace_ops
from tfqat.graph.rules import rules_from
from tfqat.rewrite.fold import affine
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.plan import Rules
from tfqat.rewrite.relu6 import DEFAULT, to_relu6
from tfqat.tuning.channels import input_ranges, on_inputs, on_outputs, output_ranges
from tfqat.tuning.pairs import Pair, find_pairs, norm_behind
from tfqat.tuning.report import Change, TuneReport
from tfqat.view.view import view

NAME = "equalize"
MEASURE = "largest channel range by the smallest, of the worse kernel"
# Rounds end where no scale moves by more than this share, or after so many.
STILL, ROUNDS = 1e-3, 100
# A channel whose range is this share of the largest, or less, is dead: making it even would only blow it up.
DEAD = 1e-6


@dataclass
class _Kernel:
    """A kernel with its BatchNorm multiplied in, and what each of its channels has been multiplied by.

    ``outputs`` and ``inputs`` hold one factor an output channel and an input channel; None where none has moved.
    """

    op: Op
    values: np.ndarray
    outputs: np.ndarray | None = None
    inputs: np.ndarray | None = None

    def scale_outputs(self, factors: np.ndarray) -> None:
        self.values = self.values * on_outputs(self.op, factors, self.values.shape)
        self.outputs = factors if self.outputs is None else self.outputs * factors

    def scale_inputs(self, factors: np.ndarray) -> None:
        self.values = self.values * on_inputs(self.op, factors, self.values.shape)
        self.inputs = factors if self.inputs is None else self.inputs * factors


def equalize(model: keras.Model, rules: Rules = (), relu6: Collection[str] = DEFAULT) -> tuple[keras.Model, TuneReport]:
    """A new float model with the same outputs whose kernels have channels of like ranges; the given one is untouched.

    Args:
        model: a float Keras model, as ``prepare`` takes it.
        rules, relu6: what ``prepare`` will be given: a scale does not pass an activation that becomes ReLU6.

    Raises:
        TfqatError: a prepared model; one without two layers that can be equalized, with the reason for each.
    """
    if isinstance(model, QuantizedModel):
        raise TfqatError(f"Model {model.name!r} is prepared already; equalize the float model and prepare that.")
    graph = view(model)
    pairs, left = find_pairs(graph, _capped(graph, rules, relu6))
    if not pairs:
        raise TfqatError(_nothing_to_do(graph, left))
    kernels = _kernels(graph, pairs)
    before = [_unevenness(pair, kernels) for pair in pairs]
    _equalize(pairs, kernels)
    after = [_unevenness(pair, kernels) for pair in pairs]
    changes = (Change(pair.name, *numbers) for pair, *numbers in zip(pairs, before, after, strict=True))
    return build(_scaled(graph, pairs, kernels)), TuneReport(NAME, MEASURE, tuple(changes), tuple(left))


def _capped(graph: Graph, rules: Rules, relu6: Collection[str]) -> dict[str, str]:
    """The ReLU6 of the model and those that ``prepare`` will make, and what can be done about them."""
    converted, _ = to_relu6(graph, relu6, rules_from(rules))
    caps = {}
    for now, then in zip(graph.ops, converted.ops, strict=True):
        if now.kind == "relu6":
            caps[now.name] = "relu6 behind it caps all channels at 6"
        elif then.kind == "relu6":
            caps[now.name] = f"{now.kind} behind it becomes relu6 (`relu6: []` would keep it)"
    return caps


def _nothing_to_do(graph: Graph, left: Iterable[tuple[str, str]]) -> str:
    reasons = "".join(f"\n  {name}: {why}" for name, why in left)
    return (
        f"{NAME}: model {graph.name!r} has no two layers between which a scale could be moved. Leave {NAME!r} out, or "
        f"change what keeps them apart:{reasons or ' it has no kernels'}"
    )


def _kernels(graph: Graph, pairs: Iterable[Pair]) -> dict[str, _Kernel]:
    found = {}
    for op in (op for pair in pairs for op in (pair.first, pair.second)):
        kernel, norm = _array(op.source.values[0]), norm_behind(graph, op)
        gain = 1.0 if norm is None else on_outputs(op, affine(norm)[0], kernel.shape)
        found[op.name] = _Kernel(op, kernel * gain)
    return found


def _equalize(pairs: Iterable[Pair], kernels: dict[str, _Kernel]) -> None:
    """Rounds over all pairs: what one pair evens out, the next one of a chain moves again, by less and less."""
    for _ in range(ROUNDS):
        moved = 0.0
        for pair in pairs:
            first, second = kernels[pair.first.name], kernels[pair.second.name]
            scales = _scales(*_ranges(first, second))
            first.scale_outputs(1.0 / scales)
            second.scale_inputs(scales)
            moved = max(moved, float(np.abs(scales - 1.0).max()))
        if moved <= STILL:
            return


def _ranges(first: _Kernel, second: _Kernel) -> tuple[np.ndarray, np.ndarray]:
    given = output_ranges(first.op, first.values)
    return given, input_ranges(second.op, second.values, len(given))


def _scales(given: np.ndarray, taken: np.ndarray) -> np.ndarray:
    living = _living(given, taken)
    return np.where(living, np.sqrt(given / np.where(living, taken, 1.0)), 1.0)


def _living(given: np.ndarray, taken: np.ndarray) -> np.ndarray:
    return np.asarray((given > DEAD * given.max()) & (taken > DEAD * taken.max()))


def _unevenness(pair: Pair, kernels: dict[str, _Kernel]) -> float:
    ranges = _ranges(kernels[pair.first.name], kernels[pair.second.name])
    living = _living(*ranges)
    return max(float(r[living].max() / r[living].min()) for r in ranges) if living.any() else 1.0


def _scaled(graph: Graph, pairs: Iterable[Pair], kernels: dict[str, _Kernel]) -> Graph:
    """The graph with the scales in its weights: those of outputs in the BatchNorm, where there is one."""
    norms = {pair.norm.name: kernels[pair.first.name] for pair in pairs if pair.norm is not None}
    by_norm = {kernel.op.name for kernel in norms.values()}

    def change(op: Op) -> Op:
        if op.name in norms:
            return replace(op, source=_scaled_norm(op.source, norms[op.name].outputs))
        if op.name in kernels:
            return replace(op, source=_scaled_kernel(op, kernels[op.name], op.name in by_norm))
        return op

    return replace_ops(graph, change)


def _scaled_kernel(op: Op, moved: _Kernel, norm_takes_outputs: bool) -> Source:
    kernel, *bias = [_array(value) for value in op.source.values]
    if moved.inputs is not None:
        kernel = kernel * on_inputs(op, moved.inputs, kernel.shape)
    if moved.outputs is not None and not norm_takes_outputs:
        kernel = kernel * on_outputs(op, moved.outputs, kernel.shape)
        bias = [value * moved.outputs for value in bias]
    return _with_values(op.source, (kernel, *bias))


def _scaled_norm(source: Source, factors: np.ndarray | None) -> Source:
    """``gamma`` and ``beta`` times the factors; a BatchNorm without gamma gets one, for nothing else scales it."""
    if factors is None:
        return source
    config, values = source.config, [_array(value) for value in source.values]
    gamma = values.pop(0) if config["scale"] else np.ones_like(factors)
    beta = [values.pop(0) * factors] if config["center"] else []
    return _with_values(replace(source, config={**config, "scale": True}), (gamma * factors, *beta, *values))


def _with_values(source: Source, values: Iterable[np.ndarray]) -> Source:
    return replace(source, values=tuple(value.astype(np.float32) for value in values), built=None)


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value, np.float64)
