"""TFLite block judge: each operator of the flatbuffer, fed the trained model's own input, against its own output.

The file is cut at every activation that Keras knows: its readers read a copy of it, which becomes an input, and it
becomes an output itself. One run judges all blocks, none of which sees the error of another.

LiteRT's usual interpreter (XNNPACK) rounds a float product half to even, as the trained model does. *Measured* on 90
tensors of every kind of op: the same integers in all but those of ALLOWED, whose operators compute coarser than
float32. Without XNNPACK, TFLite's own kernels round twice, and 0.04 to 20 % of a tensor's elements are a step off; a
trained net named the same classes in all three of the interpreter's modes (resnet8 on 599 digits).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfqat.exporters.tflite_graph.flatbuffer import pack, unpack
from tfqat.verification.blocks import BlockScore
from tfqat.verification.keras_values import KerasValues
from tfqat.verification.tflite_runner import TfliteRunner, quantized

FED = "/fed"


@dataclass(frozen=True)
class Allowance:
    """How far an operator's value may be from the trained model's before it is rounded.

    Attributes:
        steps: of the output's grid; an integer that is this near to being the right one counts as the same.
        reason: what the runtime does.
    """

    steps: float
    reason: str


_TIE = 1e-3
ALLOWED: Mapping[str, Allowance] = {
    "ADD": Allowance(_TIE, "it adds fixed-point numbers of 20 bits"),
    "SUB": Allowance(_TIE, "it subtracts fixed-point numbers of 20 bits"),
    "AVERAGE_POOL_2D": Allowance(_TIE, "averages of integers lie half-way between two, which it rounds away from zero"),
    "RESIZE_BILINEAR": Allowance(2**-5, "its weights have 10 bits, and values half-way are rounded away from zero"),
    "BATCH_MATMUL": Allowance(2**-5, "a kernel of TFLite's own, which rounds twice"),
    "TRANSPOSE_CONV": Allowance(2**-5, "a kernel of TFLite's own, which rounds twice"),
    "LEAKY_RELU": Allowance(0.5, "its slopes have 8 bits behind the point"),
    "HARD_SWISH": Allowance(0.5, "it computes with 16-bit integers"),
    "PRELU": Allowance(2**-5, "it rounds twice"),
}


def judge_tflite_blocks(data: bytes, values: KerasValues, inputs: Mapping[str, np.ndarray]) -> list[BlockScore]:
    """The BlockScore of each activation that both sides have.

    Args:
        data: the file.
        values: what the finalized model computes on ``inputs``.
        inputs: model input -> array, under the names of the file.
    """
    model = unpack(data)
    allowed = _allowed(model, values.after)
    tensors = _cut(model.subgraphs[0], values)
    runner = TfliteRunner(pack(model, len(data)))
    real = {**values.after, **inputs}
    given = {name: quantized(_entry(tensors[name]), real[name.removesuffix(FED)]) for name in runner.inputs}
    found = runner.run_integers(given)
    return [_score(name, found[name], tensors[name], values, allowed.get(name)) for name in runner.outputs]


def judged_tflite_tensors(data: bytes) -> set[str]:
    """The tensors that :func:`judge_tflite_blocks` compares, where they are the model's."""
    return {_text(tensor.name) for tensor in unpack(data).subgraphs[0].tensors}


def allowances(data: bytes) -> dict[str, str]:
    """Operators of the file that compute coarser than float32 -> what they do."""
    return {name: ALLOWED[name].reason for name in sorted(set(_operators(unpack(data)))) if name in ALLOWED}


def approximate(data: bytes) -> list[str]:
    """Operators of the file whose values may be off by more than how a tie is rounded, so that errors add up."""
    return [name for name in allowances(data) if ALLOWED[name].steps > _TIE]


def _score(name: str, found: np.ndarray, tensor: Any, values: KerasValues, allowed: Allowance | None) -> BlockScore:
    entry = _entry(tensor)
    apart = np.abs(found.astype(np.int64) - quantized(entry, values.after[name]))
    largest = int(apart.max(initial=0))
    if allowed is not None:
        scale, zero_point = entry["quantization"]
        exact = np.asarray(values.before[name], np.float64) / float(scale) + zero_point
        apart = np.where(np.abs(found - exact) <= 0.5 + allowed.steps, 0, apart)
    return BlockScore(name, apart.size, int(np.count_nonzero(apart)), largest)


def _cut(graph: Any, values: KerasValues) -> dict[str, Any]:
    """Cuts the subgraph in place; name -> tensor of its new inputs and outputs."""
    for tensor in graph.tensors:
        tensor.name = _text(tensor.name)
    made = [index for op in graph.operators for index in op.outputs if graph.tensors[index].name in values.after]
    fed: dict[int, int] = {}
    for index in made:
        fed[index] = len(graph.tensors)
        graph.tensors.append(copy(graph.tensors[index]))
        graph.tensors[-1].name += FED
    for op in graph.operators:
        op.inputs = [fed.get(index, index) for index in op.inputs]
    read = {index for op in graph.operators for index in op.inputs}
    graph.inputs = [*graph.inputs, *(index for index in fed.values() if index in read)]
    graph.outputs = made
    return {graph.tensors[index].name: graph.tensors[index] for index in (*graph.inputs, *graph.outputs)}


def _allowed(model: Any, known: Container[str]) -> dict[str, Allowance]:
    """Tensor -> the largest Allowance of the operators behind it: the one that writes it, and those between it and the
    ``known`` tensors before it."""
    graph = model.subgraphs[0]
    names = [_text(tensor.name) for tensor in graph.tensors]
    found: dict[str, Allowance] = {}
    for op, operator in zip(graph.operators, _operators(model), strict=True):
        before = [names[index] for index in op.inputs if index >= 0 and names[index] not in known]
        reasons = [found[name] for name in before if name in found]
        if operator in ALLOWED:
            reasons.append(ALLOWED[operator])
        if reasons:
            found[names[op.outputs[0]]] = max(reasons, key=lambda allowance: allowance.steps)
    return found


def _operators(model: Any) -> list[str]:
    """The builtin of each operator of the main graph."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    return [names[model.operatorCodes[op.opcodeIndex].builtinCode] for op in model.subgraphs[0].operators]


def _text(name: Any) -> str:
    return name if isinstance(name, str) else name.decode()


def _entry(tensor: Any) -> dict[str, Any]:
    """The tensor as the interpreter describes it."""
    grid = tensor.quantization
    return {"dtype": np.int8, "quantization": (np.float32(grid.scale[0]), int(grid.zeroPoint[0]))}
