"""Distillation: a prepared model that also learns what a float model, the teacher, says of the same inputs.

With ``z`` the logits of an output, ``T`` the temperature and ``p = softmax(z / T)``, a training step's loss grows by

    weight * T^2 * mean(sum_i p_i(teacher) * (log p_i(teacher) - log p_i(model)))    (arXiv:1503.02531, section 2)

and by ``feature_weight * mean((tensor - teacher's tensor)^2)`` for each feature map. The teacher runs as in inference,
gets no gradient and is part of no file and no checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import keras
from keras import ops, tree

from tfqat.core.listing import some
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Ref
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.objectives import Objective
from tfqat.rewrite.quantizer import Quantizer
from tfqat.view.view import view

OUTPUTS, FEATURES = "distillation_loss", "feature_loss"
KEY = "distillation"
KINDS = ("auto", "logits", "probabilities", "values")
# Where ReLU6 took an activation's place, the teacher's values beyond it cannot be reached, nor should they pull.
RELU6_LIMIT = 6.0

# Of the model's and the teacher's tensor and the temperature, the mean difference.
Difference = Callable[[Any, Any, float], Any]


def distill(
    model: QuantizedModel,
    teacher: keras.Model | None,
    *,
    weight: float = 1.0,
    temperature: float = 3.0,
    features: Sequence[str] = (),
    feature_weight: float = 1.0,
    outputs: str = "auto",
) -> None:
    """From here on, training ``model`` (``fit``, or a loop that takes ``model.compute_loss``) learns from ``teacher``.

    Evaluation stays as it was, and so do the files that the model is saved to. ``fit`` shows the terms as
    ``distillation_loss`` and ``feature_loss``. Call it again to change a setting.

    Args:
        model: the one that ``tfqat.prepare`` returned.
        teacher: the float model, as a rule the one that ``model`` was prepared from. Its weights are those of now. None
            ends the distillation.
        weight: of the outputs' term, beside 1 for the loss that the model is compiled with; 0 for features alone.
        temperature: of logits, above 0; ``values`` know none.
        features: names of ops whose results are to be like the teacher's; those that `tfqat inspect` lists.
        feature_weight: of their term.
        outputs: what the outputs are. ``auto`` takes the logits before a softmax layer and accepts no other output;
            ``logits`` and ``probabilities`` (over the last axis) and ``values`` (mean squared error) say it of all
            outputs that come from no softmax layer.

    Raises:
        TfqatError: models that do not fit each other, an unknown feature, an output of which ``auto`` knows no loss.
    """
    if not isinstance(model, QuantizedModel) or model.finalized:
        raise TfqatError(f"distill: model {model.name!r} is not one that tfqat.prepare returned; give that one.")
    if teacher is None:
        model.add_objective(KEY, None)
        return
    _check(weight=weight, temperature=temperature, features=features, feature_weight=feature_weight, outputs=outputs)
    fit = _Fit(view(model), _float_view(teacher))
    wanted = {}
    if weight:
        wanted[OUTPUTS] = (weight, [fit.output(place, outputs) for place in range(len(fit.given.outputs))])
    if features:
        wanted[FEATURES] = (feature_weight, [fit.feature(name) for name in features])
    model.add_objective(KEY, _objective(model, fit, wanted, temperature))


def from_logits(own: Any, given: Any, temperature: float) -> Any:
    """The Kullback-Leibler divergence of the tempered softmax of ``own`` from that of ``given``, times T^2."""
    wanted = ops.log_softmax(given / temperature, axis=-1)
    found = ops.log_softmax(own / temperature, axis=-1)
    each = ops.sum(ops.exp(wanted) * (wanted - found), axis=-1)
    return ops.mean(each) * temperature**2


def from_probabilities(own: Any, given: Any, temperature: float) -> Any:
    """``from_logits`` of the logarithms: ``softmax(log p / T)`` is ``p^(1/T)``, normalized."""
    floor = keras.config.epsilon()
    return from_logits(ops.log(ops.maximum(own, floor)), ops.log(ops.maximum(given, floor)), temperature)


def from_values(own: Any, given: Any, temperature: float) -> Any:
    """The mean squared error; values have no temperature."""
    return ops.mean(ops.square(own - given))


_DIFFERENCES: dict[str, Difference] = {
    "logits": from_logits,
    "probabilities": from_probabilities,
    "values": from_values,
}


@dataclass(frozen=True)
class _Pair:
    """A tensor of the model, one of the teacher, how they differ, and a bound of the teacher's values."""

    own: str
    given: str
    difference: Difference
    limit: float | None = None


class _Fit:
    """A prepared model and its teacher, and which of their tensors are to be alike.

    Raises:
        TfqatError: their inputs or outputs differ.
    """

    def __init__(self, own: Graph, given: Graph) -> None:
        self.own, self.given = own, given
        for what in ("inputs", "outputs"):
            shapes = [_shapes(graph, getattr(graph, what)) for graph in (own, given)]
            if shapes[0] != shapes[1]:
                raise TfqatError(
                    f"distill: the {what} of the model have the shapes {shapes[0]}, those of the teacher {shapes[1]}. "
                    f"Give the float model that it was prepared from, or one of the same {what}."
                )

    def output(self, place: int, kind: str) -> _Pair:
        """The pair of one output."""
        own, given = (_logits_of(graph, graph.outputs[place]) for graph in (self.own, self.given))
        if own and given:
            return _Pair(own, given, from_logits)
        if kind == "auto":
            raise TfqatError(
                f"distill: the output {self.given.outputs[place]!r} comes from no softmax layer over its last axis in "
                "both models, so it may be logits, probabilities or values. Say which: outputs='logits', "
                "'probabilities' or 'values' (mean squared error)."
            )
        return _Pair(self.own.outputs[place], self.given.outputs[place], _DIFFERENCES[kind])

    def feature(self, name: str) -> _Pair:
        """The pair of the results of one op."""
        own, given = ({op.name: op for op in graph.ops} for graph in (self.own, self.given))
        if name not in own or name not in given:
            shared = [known for known in given if known in own]
            near = get_close_matches(str(name), shared, n=3)
            raise TfqatError(
                f"distill: {name!r} is no op that both the model and its teacher have; expected names such as "
                f"{some(near or shared)}. `tfqat inspect` lists them."
            )
        tensor, wanted = own[name].outputs[0], given[name].outputs[0]
        shapes = _shapes(self.own, [tensor]), _shapes(self.given, [wanted])
        if shapes[0] != shapes[1]:
            raise TfqatError(f"distill: {name!r} gives {shapes[0]} in the model, {shapes[1]} in the teacher.")
        clipped = own[name].kind == "relu6" and given[name].kind != "relu6"
        return _Pair(_as_read(self.own, tensor), wanted, from_values, RELU6_LIMIT if clipped else None)


def _as_read(graph: Graph, tensor: str) -> str:
    """The tensor behind its Quantizer, where it has one: what the ops behind it read."""
    readers = [op for op in graph.consumers(tensor) if op.source.cls is Quantizer]
    return readers[0].outputs[0] if readers else tensor


def _logits_of(graph: Graph, output: str) -> str | None:
    """What the softmax over the last axis reads that gives the output; None where none does."""
    op = graph.producer(output)
    while op is not None and op.source.cls is Quantizer:
        op = graph.producer(op.inputs[0])
    if op is None or op.kind != "softmax":
        return None
    rank, axis = len(graph.shapes[op.inputs[0]]), op.source.config.get("axis", -1)
    return op.inputs[0] if axis in (-1, rank - 1) else None


def _shapes(graph: Graph, tensors: Sequence[str]) -> list[tuple[int | None, ...]]:
    return [tuple(graph.shapes[tensor][1:]) for tensor in tensors]


def _objective(
    model: QuantizedModel, fit: _Fit, wanted: Mapping[str, tuple[float, Sequence[_Pair]]], temperature: float
) -> Objective:
    """The Objective of name -> (weight, pairs), with a teacher built anew: who trains the given one changes none."""
    pairs = [pair for _, some_pairs in wanted.values() for pair in some_pairs]
    ends = tuple(pair.given for pair in pairs)
    teacher = build(replace(fit.given, outputs=ends, output_structure=[Ref(place) for place in range(len(ends))]))

    def terms(inputs: Any, values: Sequence[Any]) -> dict[str, Any]:
        known = iter(zip(pairs, values, tree.flatten(teacher(inputs, training=False)), strict=True))
        return {
            name: weight * sum(_differ(*next(known), temperature) for _ in own)
            for name, (weight, own) in wanted.items()
        }

    return Objective(wanted, _symbols(model, fit.own, [pair.own for pair in pairs]), terms)


def _differ(pair: _Pair, own: Any, given: Any, temperature: float) -> Any:
    given = ops.stop_gradient(ops.cast(given, "float32"))
    if pair.limit is not None:
        given = ops.minimum(given, pair.limit)
    return pair.difference(ops.cast(own, "float32"), given, temperature)


def _symbols(model: QuantizedModel, graph: Graph, names: Sequence[str]) -> list[Any]:
    """The symbolic tensors of a flat model by the names that its view gives them."""
    known = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    found = dict(zip(graph.inputs, model.inputs, strict=True))
    calls: Counter[int] = Counter()
    for op in graph.ops:
        layer = op.source.built
        nodes = [node for node in layer._inbound_nodes if id(node) in known]
        found.update(zip(op.outputs, tree.flatten(nodes[calls[id(layer)]].output_tensors), strict=True))
        calls[id(layer)] += 1
    return [found[name] for name in names]


def _float_view(teacher: keras.Model) -> Graph:
    if isinstance(teacher, QuantizedModel):
        raise TfqatError(f"distill: the teacher {teacher.name!r} is a prepared model; give a float model.")
    return view(teacher)


def _check(*, weight: Any, temperature: Any, features: Any, feature_weight: Any, outputs: Any) -> None:
    """Raises TfqatError for a setting out of its range, or settings that ask for nothing."""
    if isinstance(features, str):
        raise TfqatError(f"distill: features: expected a list of op names, received the text {features!r}.")
    for name, value in (("weight", weight), ("temperature", temperature), ("feature_weight", feature_weight)):
        if not (value > 0 or (value == 0 and name == "weight")) or not math.isfinite(value):
            bound = "from 0" if name == "weight" else "above 0"
            raise TfqatError(f"distill: {name}: expected a number {bound}, received {value!r}.")
    if outputs not in KINDS:
        raise TfqatError(f"distill: outputs: expected one of {', '.join(KINDS)}, received {outputs!r}.")
    if not weight and not features:
        raise TfqatError(
            "distill: weight is 0 and no features are named, so nothing would be learnt; give one of them."
        )
