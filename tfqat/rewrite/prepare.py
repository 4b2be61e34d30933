"""Prepare: a float Keras model made into one that trains with its quantization in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras

from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Op, Source, insert_after, replace_ops
from tfqat.graph.kinds import IDENTITY, OTHER_WEIGHTED
from tfqat.graph.place import place
from tfqat.graph.placement import Placement
from tfqat.graph.rules import Rule, rules_from
from tfqat.graph.target import Target
from tfqat.graph.view import view
from tfqat.rewrite.absorbed import absorb
from tfqat.rewrite.batch_norm import FreezableBatchNormalization
from tfqat.rewrite.kernels import QUANTIZED_LAYERS
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.quantizer import RANGES, Quantizer, RangeObserver
from tfqat.rewrite.relu6 import DEFAULT, to_relu6
from tfqat.targets import load_target

Rules = Iterable[Rule | Mapping[str, Any]]

# Activations that give no negative values, and what passes such values on.
_NONNEGATIVE = frozenset("relu relu6 sigmoid hard_sigmoid softmax softplus exponential".split())
_KEEPS_SIGN = IDENTITY | frozenset(
    ["max_pooling2d", "average_pooling2d", "global_average_pooling2d", "reshape", "flatten"]
)


@dataclass(frozen=True)
class RangeOptions:
    """How Quantizers learn their ranges; see quantizer.RangeEstimator for each."""

    ranges: str = "moving_average"
    decay: float = 0.99
    observe_fraction: float = 1.0
    freeze_step: int | None = None

    def __post_init__(self) -> None:
        if self.ranges not in RANGES:
            raise TfqatError(f"ranges: expected one of {', '.join(RANGES)}, received {self.ranges!r}.")
        if not 0 < self.decay < 1:
            raise TfqatError(f"decay: expected a number between 0 and 1, received {self.decay!r}.")
        if not 0 < self.observe_fraction <= 1:
            raise TfqatError(f"observe_fraction: expected above 0 and at most 1, received {self.observe_fraction!r}.")
        if self.freeze_step is not None and self.freeze_step < 0:
            raise TfqatError(f"freeze_step: expected a step from 0, or None, received {self.freeze_step!r}.")


def prepare(
    model: keras.Model,
    target: str = "tensorrt",
    rules: Rules = (),
    relu6: Collection[str] = DEFAULT,
    ranges: str = "moving_average",
    *,
    decay: float = 0.99,
    observe_fraction: float = 1.0,
    freeze_step: int | None = None,
    strict: bool = False,
) -> QuantizedModel:
    """A new model that computes what INT8 inference will, and trains; the given one is untouched.

    Args:
        model: a float Keras model: functional, Sequential, nested, or subclassed of layers and ``keras.ops``.
        target: name of a file in ``targets/``.
        rules: ordered; the first rule that matches an op and has the key decides. Keys: ``match`` (glob on op names),
            ``quantize``, ``relu6``.
        relu6: kinds of activation that become ReLU6, but for model outputs.
        ranges: ``moving_average``, ``learned`` (LSQ) or ``fixed`` (calibration's stay).
        decay: of the moving average.
        observe_fraction: share of each batch by which ranges follow.
        freeze_step: training step after which ranges stay.
        strict: a weighted op that stays float without a rule that asks for it is an error.

    Raises:
        TfqatError: nothing to quantize, a rule without a match, an unknown target or option, a prepared model.
    """
    options = RangeOptions(ranges, decay, observe_fraction, freeze_step)
    graph, plan, chosen = _plan(model, target, rules, relu6)
    _check(graph, plan, chosen, options, strict)
    graph = replace_ops(graph, lambda op: _quantized(op, plan))
    graph = insert_after(graph, _range_ops(graph, plan, options), keep_outputs=_float_outputs(graph, plan))
    return build(absorb(graph), partial(QuantizedModel, placement=plan))


def placement(
    model: keras.Model, target: str = "tensorrt", rules: Rules = (), relu6: Collection[str] = DEFAULT
) -> Placement:
    """What ``prepare`` would do to the model, and why; nothing is rewritten. Prints as a table.

    Raises:
        TfqatError: a rule without a match, an unknown target or activation.
    """
    if isinstance(model, QuantizedModel):
        return model.placement
    return _plan(model, target, rules, relu6)[1]


def relu6_model(model: keras.Model, rules: Rules = (), relu6: Collection[str] = DEFAULT) -> keras.Model:
    """The float model with its activations converted and nothing quantized: what the conversion alone costs."""
    graph, _ = to_relu6(view(model), relu6, rules_from(rules))
    return build(graph)


def _plan(
    model: keras.Model, target: str, rules: Rules, relu6: Collection[str]
) -> tuple[Graph, Placement, tuple[Rule, ...]]:
    if isinstance(model, QuantizedModel):
        raise TfqatError(f"Model {model.name!r} is prepared already; give tfqat.prepare the float model.")
    chosen = rules_from(rules)
    accelerator: Target = load_target(target)
    graph, changes = to_relu6(view(model), relu6, chosen)
    return graph, place(graph, accelerator, chosen, changes), chosen


def _check(graph: Graph, plan: Placement, rules: tuple[Rule, ...], options: RangeOptions, strict: bool) -> None:
    if not plan.weights:
        kinds = ", ".join(sorted({op.kind for op in graph.ops})) or "none"
        raise TfqatError(
            f"Model {graph.name!r} has no layer that {plan.target} can quantize: its ops are of the kinds {kinds}; "
            "the rules and the float output layers leave none. `tfqat inspect` says why for each."
        )
    for op in graph.ops:
        if op.source.config.get("renorm"):
            raise TfqatError(f"{op.name!r}: BatchNormalization with renorm=True cannot be folded; set renorm=False.")
    if options.ranges == "learned" and not all(scheme.symmetric for scheme in plan.activations.values()):
        raise TfqatError(f"ranges='learned' needs symmetric activations, which {plan.target} has not.")
    asked = [row for row in plan.rows if row.state == "float" and not row.output and not row.reason.startswith("rule")]
    floats = [row for row in asked if row.macs or row.kind in OTHER_WEIGHTED]
    if strict and floats:
        lines = "\n".join(f"  {row.op} ({row.kind}): {row.reason}" for row in floats)
        raise TfqatError(
            f"strict: these weighted ops would stay float:\n{lines}\nAllow each by a rule, or unset strict."
        )


def _quantized(op: Op, plan: Placement) -> Op:
    """The op with a quantized kernel, or a BatchNorm that can be frozen; other ops as they are."""
    source = op.source
    if op.name in plan.weights:
        scheme = plan.weights[op.name]
        config = {**source.config, "weight_scheme": scheme}
        # Calls of one layer share it as long as they agree on how its kernel is quantized.
        key = (source.key, "quantized", scheme)
        return replace(op, source=Source(QUANTIZED_LAYERS[op.kind], config, source.values, key))
    if source.cls is keras.layers.BatchNormalization:
        return replace(op, source=replace(source, cls=FreezableBatchNormalization, built=None))
    return op


def _range_ops(graph: Graph, plan: Placement, options: RangeOptions) -> dict[str, Op]:
    """Tensor -> the Quantizer or observer to put after it."""
    found = {}
    for tensor, scheme in plan.activations.items():
        found[tensor] = _range_op(Quantizer, graph, tensor, scheme, plan, options)
    for tensor in plan.observed:
        scheme = next(iter(plan.activations.values()))
        found[tensor] = _range_op(RangeObserver, graph, tensor, scheme, plan, options)
    return found


def _range_op(cls: type, graph: Graph, tensor: str, scheme: Scheme, plan: Placement, options: RangeOptions) -> Op:
    kind = "quantizer" if cls is Quantizer else "range_observer"
    how = "moving_average" if cls is RangeObserver and options.ranges == "learned" else options.ranges
    config = {
        "scheme": scheme,
        "ranges": how,
        "decay": options.decay,
        "observe_fraction": options.observe_fraction,
        "freeze_step": options.freeze_step,
        "nonnegative": _nonnegative(graph, tensor),
        "group": plan.groups.get(tensor),
    }
    name = f"{tensor}/{kind}"
    return Op(name, name, kind, (tensor,), (name,), Source(cls, config, (), name))


def _nonnegative(graph: Graph, tensor: str) -> bool:
    op = graph.producer(tensor)
    while op is not None and op.kind in _KEEPS_SIGN:
        op = graph.producer(op.inputs[0])
    return op is not None and op.kind in _NONNEGATIVE


def _float_outputs(graph: Graph, plan: Placement) -> list[str]:
    tail = {row.op for row in plan.rows if row.output}
    return [tensor for tensor in graph.outputs if (op := graph.producer(tensor)) is not None and op.name in tail]
