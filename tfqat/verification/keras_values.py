"""Keras values: the tensors of the finalized model on given images, which the files are judged against."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfqat.graph.graph import Graph, Op
from tfqat.graph.run import run
from tfqat.view.view import view

QUANTIZER = "quantizer"
# Outputs that vary by less than this share of themselves are as good as constant.
CONSTANT = 1e-3


@dataclass(frozen=True)
class KerasValues:
    """What the finalized model computes.

    Attributes:
        after: tensor -> its value, after its Quantizer where one reads it.
        outputs: the model's outputs, in order.
        before: tensor -> its value before its Quantizer.
    """

    after: Mapping[str, np.ndarray]
    outputs: tuple[np.ndarray, ...]
    before: Mapping[str, np.ndarray] = field(default_factory=dict)


def values_of(
    model: keras.Model, inputs: Mapping[str, np.ndarray], tensors: Collection[str] | None = None
) -> KerasValues:
    """What ``model`` (finalized) computes on ``inputs`` (input tensor -> array).

    Args:
        tensors: those that are wanted besides the outputs, so that no others are held; None wants all.
    """
    graph = view(model)
    quantized = {op.inputs[0]: op.outputs[0] for op in graph.ops if op.kind == QUANTIZER}
    wanted = None if tensors is None else {*tensors, *(quantized.get(name, name) for name in tensors)}
    keep = None if wanted is None else {*wanted, *graph.outputs}
    found = {name: np.asarray(value) for name, value in run(graph, _tensors(inputs), keep=keep).items()}
    known = found if wanted is None else [name for name in found if name in wanted]
    after = {name: found[quantized.get(name, name)] for name in known}
    return KerasValues(after, tuple(found[name] for name in graph.outputs), found)


def noise_error(model: keras.Model, inputs: Mapping[str, np.ndarray], relative: float, seeds: int) -> list[float]:
    """How far each output of ``model`` moves under noise, at most: relative L2 error of the centered values.

    Each tensor that a Quantizer reads is multiplied by ``1 + relative * n`` with n from a normal distribution: what
    another order of float additions may do to it. The largest of ``seeds`` runs counts.
    """
    graph = view(model)
    read = {op.inputs[0] for op in graph.ops if op.kind == QUANTIZER}
    plain = _outputs(graph, run(graph, _tensors(inputs), keep=graph.outputs))
    worst = [0.0] * len(plain)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        start = {name: _noisy(value, relative, rng) if name in read else value for name, value in inputs.items()}

        def disturb(op: Op, outputs: list[Any], rng: np.random.Generator = rng) -> list[Any]:
            pairs = zip(op.outputs, outputs, strict=True)
            return [_noisy(value, relative, rng) if name in read else value for name, value in pairs]

        moved = _outputs(graph, run(graph, _tensors(start), disturb, graph.outputs))
        worst = [max(w, centered_error(a, b)) for w, a, b in zip(worst, moved, plain, strict=True)]
    return worst


def centered_error(values: np.ndarray, reference: np.ndarray) -> float:
    """Relative L2 error after the mean over the images (axis 0) is taken from each side; of one image's values as such.

    Where the reference hardly depends on the image, what is left of it is rounding: then the error is relative to
    CONSTANT times the reference itself, so that float32's last bits do not count as an error.
    """
    difference = _centered(values) - _centered(reference)
    size = max(float(np.linalg.norm(_centered(reference))), CONSTANT * float(np.linalg.norm(reference)))
    return float(np.linalg.norm(difference)) / size if size > 0 else float(np.linalg.norm(difference) > 0)


def _centered(values: np.ndarray) -> np.ndarray:
    # One image is its own mean: nothing would be left, and any error pass.
    return values - values.mean(axis=0) if len(values) > 1 else values


def _noisy(value: Any, relative: float, rng: np.random.Generator) -> Any:
    noise = 1 + relative * rng.standard_normal(value.shape)
    return value * keras.ops.convert_to_tensor(noise.astype(np.float32))


def _tensors(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}


def _outputs(graph: Graph, tensors: Mapping[str, Any]) -> list[np.ndarray]:
    return [np.asarray(tensors[name], np.float64) for name in graph.outputs]
