"""Judge: says whether two forms of one model compute the same; DESIGN 9's per-block rule where they round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfqat.core.encoding import encoding_of_slopes
from tfqat.exporters import onnx_qdq
from tfqat.exporters.exportable import Exportable
from tfqat.exporters.options import Options
from tfqat.graph.graph import Graph, Op
from tfqat.graph.run import run
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.rewrite.split import split
from tfqat.targets import load_target
from tfqat.verification.blocks import BlockScore, judge_blocks
from tfqat.verification.keras_values import centered_error, noise_error, values_of
from tfqat.verification.report import NOISE, NOISE_FACTOR, NOISE_FLOOR, NOISE_SEEDS
from tfqat.verification.runner import Runner
from tfqat.view.view import view

Arrays = Mapping[str, np.ndarray]
SAME = 1e-5
REACHING = 1e-4


def differences(found: Any, expected: Any) -> list[str]:
    """Outputs further apart than SAME, relative to the largest value of the output."""
    lines = []
    for number, (a, b) in enumerate(zip(_arrays(found), _arrays(expected), strict=True)):
        error = np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-6) if a.shape == b.shape else np.inf
        if not error <= SAME:
            lines.append(f"output {number}: {a.shape} for {b.shape}, relative error {error:.2e}")
    return lines


def finalized_blocks(qat: keras.Model, final: keras.Model, inputs: Arrays) -> tuple[list[BlockScore], list[str]]:
    """Each block of the finalized model, fed the QAT model's own input: scores, and outputs that differ.

    The finalized model is run op by op; behind each Quantizer the QAT model's value takes the place of its own. An
    integer that the rounding of biases and slopes alone explains (targets that have them as integers) counts as the
    same.
    """
    trained = run(view(qat), _tensors(inputs))
    graph, scores = view(final), []
    moved = _Moved(graph) if load_target(final.placement.target).integer_bias else None

    def feed(op: Op, outputs: list[Any]) -> list[Any]:
        if op.kind == "quantizer":
            before, after = (np.asarray(trained[name]) for name in (op.inputs[0], op.outputs[0]))
            slack = moved.by(op, before) if moved else 0.0
            scores.append(_score(op, np.asarray(outputs[0]), before, after, slack))
            return [trained[op.outputs[0]]]
        return outputs

    found = run(graph, _tensors(inputs), feed)
    expected = [trained[name] for name in view(qat).outputs]
    return scores, differences([found[name] for name in graph.outputs], expected)


def _score(op: Op, found: np.ndarray, before: np.ndarray, after: np.ndarray, slack: float) -> BlockScore:
    """One Quantizer's integers against those of the QAT model, which rounds ``before`` to ``after``."""
    encoding = op.source.built.encoding()
    integers = encoding.quantize(found)
    apart = np.abs(integers - encoding.quantize(after))
    if slack:
        exact = before.astype(np.float64) / float(encoding.scale) + int(encoding.zero_point)
        apart = np.where(np.abs(integers - exact) <= 0.5 + slack / float(encoding.scale), 0, apart)
    return BlockScore(op.inputs[0], apart.size, int(np.count_nonzero(apart)), int(apart.max(initial=0)))


class _Moved:
    """How far the integer biases and slopes of a finalized model may move what a Quantizer reads."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def by(self, quantizer: Op, values: np.ndarray) -> float:
        """The sum over the block before the Quantizer: half a step of each bias, half a step of each slope times x."""
        total, pending = 0.0, [quantizer.inputs[0]]
        while pending:
            op = self.graph.producer(pending.pop())
            if op is None or op.kind == "quantizer":
                continue
            total += self._of(op, values)
            pending += op.inputs
        return total

    def _of(self, op: Op, values: np.ndarray) -> float:
        layer = op.source.built
        if isinstance(layer, QuantizedKernel) and layer.use_bias:
            return 0.5 * self._scale(op.inputs[0]) * float(np.max(layer.kernel_scale))
        if op.kind == "prelu":
            slopes = np.asarray(layer.weights[0])
            return 0.5 * float(encoding_of_slopes(slopes).scale) * float(np.abs(values / slopes.max()).max())
        return 0.0

    def _scale(self, tensor: str) -> float:
        """Of the Quantizer whose range the tensor has."""
        op = self.graph.producer(tensor)
        while op is not None and op.kind != "quantizer":
            op = self.graph.producer(op.inputs[0])
        return float(op.source.built.encoding().scale) if op is not None else 0.0


def onnx_problems(final: keras.Model, inputs: Arrays) -> list[str]:
    """What is out of tolerance in the Q/DQ ONNX of a finalized model: blocks, and the outputs end to end."""
    model, learnt = split(final)
    exportable = Exportable(model, learnt, Options())
    written = onnx_qdq.insert(exportable.onnx, exportable.told, clip=True)
    runner = Runner(written)
    given = dict(zip(runner.inputs, inputs.values(), strict=True))
    values = values_of(final, inputs)
    renamed = {name: keras_name for keras_name, name in exportable.renamed.items()}
    problems = failed(judge_blocks(written, values, given, renamed))
    pairs = zip(runner.run(given).values(), values.outputs, strict=True)
    errors = [centered_error(found.astype(np.float64), expected.astype(np.float64)) for found, expected in pairs]
    return problems + _end_to_end(final, inputs, errors)


def _end_to_end(final: keras.Model, inputs: Arrays, errors: list[float]) -> list[str]:
    """The outputs that are further off than DESIGN 9 allows.

    In a model of a few hundred values its noise may move none over an edge, where another order of additions moved
    one: before an output is called wrong, noise that reaches every value near an edge is asked, too.
    """
    for noise, seeds in ((NOISE, NOISE_SEEDS), (REACHING, 2 * NOISE_SEEDS)):
        limits = [NOISE_FACTOR * max(error, NOISE_FLOOR) for error in noise_error(final, inputs, noise, seeds)]
        wrong = [
            f"output {number}: end-to-end error {error:.2e} is above {limit:.2e}"
            for number, (error, limit) in enumerate(zip(errors, limits, strict=True))
            if not error <= limit
        ]
        if not wrong:
            break
    return wrong


def failed(scores: list[BlockScore]) -> list[str]:
    """The blocks that are out of tolerance, as sentences."""
    return [
        f"{s.tensor}: {s.differing} of {s.elements} elements differ, up to {s.largest} steps"
        for s in scores
        if not s.passed
    ]


def _tensors(inputs: Arrays) -> dict[str, Any]:
    return {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}


def _arrays(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(value, np.float64) for value in keras.tree.flatten(outputs)]
