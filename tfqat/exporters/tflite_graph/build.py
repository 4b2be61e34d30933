"""TFLite graph: a float graph and its Encodings as the bytes of a flatbuffer that computes with integers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfqat.core.encoding import Encoding, Encodings
from tfqat.errors import TfqatError
from tfqat.exporters.tflite_graph.affine import requantize
from tfqat.exporters.tflite_graph.elementwise import FIXED
from tfqat.exporters.tflite_graph.emission import FUSED, Emission, Step, Unsupported
from tfqat.exporters.tflite_graph.flatbuffer import Flatbuffer, Tensor, TooLarge
from tfqat.exporters.tflite_graph.kinds import KINDS
from tfqat.graph.graph import Graph, Op
from tfqat.graph.run import constant_values

ACTIVATIONS = "relu, relu6, leaky_relu, prelu, elu, gelu, silu, hard_silu, hard_sigmoid, sigmoid, tanh, softmax"


class TfliteError(TfqatError):
    """A model that TFLite cannot run on integers alone."""


@dataclass(frozen=True)
class TfliteModel:
    """A finished model.

    Attributes:
        data: the file's bytes.
        operators: operator -> how often it is in the model.
        fixed: tensor -> (scale, zero point), where the specification fixes them.
        derived: tensor that the trained model has not, or not in integers -> where its scale is from.
        requantized: tensors that some reader needs on another grid, by a convolution in between.
    """

    data: bytes
    operators: Mapping[str, int]
    fixed: Mapping[str, tuple[float, int]]
    derived: Mapping[str, str]
    requantized: tuple[str, ...]


def build(
    graph: Graph,
    learnt: Encodings,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> TfliteModel:
    """The model of a float graph.

    Args:
        graph: the view of the float model, BatchNorm folded where it folds, kernels on their grids.
        learnt: its Encodings, in the graph's tensor names.
        input_names, output_names: names in the file's signature; the graph's where None.

    Raises:
        TfliteError: names each op that would not run on integers, why, and how to mend it.
    """
    emission = Emission(graph, learnt, Flatbuffer(), requantize)
    try:
        problems = _emit_all(emission)
    except TooLarge as error:
        raise TfliteError(f"Model {graph.name!r} is too large for a TFLite file: {error}. Make it smaller.") from error
    if problems:
        raise TfliteError(_refusal(graph, problems))
    inputs = _named(emission, graph.inputs, input_names, "input_names")
    outputs = _named(emission, graph.outputs, output_names, "output_names")
    data = emission.flatbuffer.finish(inputs, outputs)
    fixed = {op.name: FIXED[op.kind] for op in graph.ops if op.kind in FIXED}
    requantized = tuple(tensor for tensor, _ in emission.requantized)
    return TfliteModel(data, emission.flatbuffer.operators, fixed, emission.derived, requantized)


def steps_of(graph: Graph, activations: Mapping[str, Encoding]) -> list[Step]:
    """The graph as steps: an activation joins the op before it where nothing is rounded between the two."""
    steps: list[Step] = []
    joined: set[str] = set()
    for op in graph.ops:
        if op.name in joined:
            continue
        follower = _follower(graph, op, activations)
        joined.update([] if follower is None else [follower.name])
        steps.append(Step(op, follower))
    return steps


def _follower(graph: Graph, op: Op, activations: Mapping[str, Encoding]) -> Op | None:
    if op.outputs[0] in activations or op.kind not in KINDS or not KINDS[op.kind].fuses:
        return None
    following = graph.sole_consumer(op.outputs[0])
    return following if following is not None and following.kind in FUSED else None


def _emit_all(emission: Emission) -> list[str]:
    """Writes all that can be written; a line for each op that cannot, so that the user sees them all at once."""
    graph, known = emission.graph, emission.learnt.activations
    at_inputs = {name: line for name in graph.inputs for line in _emit_input(emission, name)}
    constants = _emit_constants(emission)
    problems: dict[str, str] = {}
    for step in steps_of(graph, known):
        if constants.issuperset(step.outputs):
            continue
        try:
            _emit(emission, step)
        except Unsupported as reason:
            problems[step.op.name] = f"{step.op.name} ({step.op.kind}): {reason}"
            _go_on(emission, step)
    # An input without a scale has readers that want none, and they say why.
    explained = {
        name
        for name in at_inputs
        if name not in known and any(reader.name in problems for reader in graph.consumers(name))
    }
    return [*(line for name, line in at_inputs.items() if name not in explained), *problems.values()]


def _emit_input(emission: Emission, name: str) -> list[str]:
    dtype = emission.graph.dtypes[name]
    if "float" not in dtype:
        return [f"{name} (model input): its values are {dtype}; TFLite takes int8 of its own scale: make it float32"]
    try:
        encoding = emission.encoding(name)
        _check_scheme(encoding)
        emission.declare(name)
    except Unsupported as reason:
        return [f"{name} (model input): {reason}"]
    return []


def _emit_constants(emission: Emission) -> frozenset[str]:
    """Writes what ops that depend on an input read of those that depend on none; the names of all such tensors."""
    graph, learnt = emission.graph, emission.learnt.activations

    def rounded(op: Op, outputs: list[Any]) -> list[Any]:
        pairs = zip(op.outputs, map(np.asarray, outputs), strict=True)
        return [learnt[name].fake_quantize(value) if name in learnt else value for name, value in pairs]

    values = constant_values(graph, rounded)
    for name, value in values.items():
        readers = graph.consumers(name)
        needed = name in graph.outputs or not all(values.keys() >= set(op.outputs) for op in readers)
        if needed and name in learnt:
            encoding = emission.encoding(name)
            _check_scheme(encoding)
            emission.hold(name, encoding.quantize(value))
    return frozenset(values)


def _emit(emission: Emission, step: Step) -> None:
    op, learnt = step.op, emission.learnt
    if op.kind not in KINDS:
        reason = learnt.float_ops.get(op.name, "")
        raise Unsupported(
            f"no int8 operator of TFLite does it{reason and f' ({reason})'}: replace it (activations that it has: "
            f"{ACTIVATIONS})"
        )
    for tensor in step.outputs:
        if tensor not in learnt.activations:
            reason = learnt.float_ops.get(op.name, "its output has no scale")
            raise Unsupported(f"stays float: {reason}; quantize it (rules, prepare's target), or leave it out")
        _check_scheme(emission.encoding(tensor))
    if any(tensor not in emission.tensors for tensor in op.inputs):
        _go_on(emission, step)  # what it reads has been named already
    else:
        KINDS[op.kind].emit(emission, step)


def _go_on(emission: Emission, step: Step) -> None:
    """Lets the readers of what could not be written go on."""
    for tensor in step.outputs:
        encoding = emission.learnt.activations.get(tensor)
        if encoding is not None and tensor not in emission.tensors:
            emission.tensors[tensor] = Tensor(0, tensor, emission.graph.shapes[tensor], encoding)


def _check_scheme(encoding: Encoding) -> None:
    scheme = encoding.scheme
    if not scheme.signed or scheme.bits != 8 or scheme.per_channel:
        raise Unsupported(f"its scheme is {scheme}; TFLite's activations are int8 with one scale: prepare for tflite")


def _refusal(graph: Graph, problems: Sequence[str]) -> str:
    lines = "\n".join(f"  {problem}" for problem in problems)
    return (
        f"Model {graph.name!r} cannot be written as a TFLite file of integers only; nothing was written. What is in "
        f"the way ({len(problems)}):\n{lines}"
    )


def _named(emission: Emission, tensors: Sequence[str], names: Sequence[str] | None, option: str) -> dict[str, Tensor]:
    given = list(tensors if names is None else names)
    if len(given) != len(tensors) or len(set(given)) != len(given):
        raise TfliteError(f"{option}: expected {len(tensors)} different names for {list(tensors)}, received {given}.")
    return {name: emission.tensors[tensor] for name, tensor in zip(given, tensors, strict=True)}
