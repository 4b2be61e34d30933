"""Prepare: a float Keras model made into one that trains with its quantization in place."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras

from tfqat.core.encoding import encoding_of_least_error
from tfqat.core.listing import some
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Op, Source, insert_after, replace_ops
from tfqat.graph.kinds import OTHER_WEIGHTED
from tfqat.graph.placement import Placement
from tfqat.graph.rules import rules_from
from tfqat.graph.sign import is_nonnegative
from tfqat.rewrite.absorbed import absorb
from tfqat.rewrite.batch_norm import FreezableBatchNormalization
from tfqat.rewrite.kernels import QUANTIZED_LAYERS, learned_variable
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.plan import Plan, Rules, plan_for
from tfqat.rewrite.quantizer import RANGES, Quantizer, RangeObserver
from tfqat.rewrite.relu6 import DEFAULT, to_relu6
from tfqat.view.view import view

# Of the moving average, where the user gives none.
DECAY = 0.99


@dataclass(frozen=True)
class RangeOptions:
    """How Quantizers learn their ranges; see quantizer.RangeEstimator for each."""

    ranges: str = "moving_average"
    decay: float = DECAY
    observe_fraction: float = 1.0
    freeze_after: int | None = None
    rate_multiplier: float = 1.0

    def __post_init__(self) -> None:
        if self.ranges not in RANGES:
            raise TfqatError(f"ranges: expected one of {', '.join(RANGES)}, received {self.ranges!r}.")
        if not 0 < self.decay < 1:
            raise TfqatError(f"decay: expected a number between 0 and 1, received {self.decay!r}.")
        if not 0 < self.observe_fraction <= 1:
            raise TfqatError(f"observe_fraction: expected above 0 and at most 1, received {self.observe_fraction!r}.")
        for name, value, usual in (("decay", self.decay, DECAY), ("observe_fraction", self.observe_fraction, 1.0)):
            if value != usual and self.ranges != "moving_average":
                raise TfqatError(
                    f"{name}: received {value!r} with ranges={self.ranges!r}, which does not use it; expected it with "
                    "ranges='moving_average' only."
                )
        if self.freeze_after is not None and self.freeze_after < 0:
            raise TfqatError(f"freeze_after: expected a step from 0, or None, received {self.freeze_after!r}.")
        if self.freeze_after is not None and self.ranges == "fixed":
            raise TfqatError("freeze_after: ranges='fixed' never move, so there is nothing to freeze; leave it out.")
        if not 0 < self.rate_multiplier < math.inf:
            raise TfqatError(f"ranges_rate_multiplier: expected a number above 0, received {self.rate_multiplier!r}.")
        if self.rate_multiplier != 1 and self.ranges != "learned":
            raise TfqatError(
                f"ranges_rate_multiplier: expected with ranges='learned' only, received {self.rate_multiplier!r} with "
                f"ranges={self.ranges!r}, which no optimizer moves; leave it out."
            )


def prepare(
    model: keras.Model,
    target: str = "tensorrt",
    rules: Rules = (),
    relu6: Collection[str] = DEFAULT,
    ranges: str = "moving_average",
    *,
    decay: float = DECAY,
    observe_fraction: float = 1.0,
    freeze_after: int | None = None,
    ranges_rate_multiplier: float = 1.0,
    strict: bool = False,
    activation: str | None = None,
) -> QuantizedModel:
    """A new model that computes what INT8 inference will, and trains; the given one is untouched.

    It is a plain functional model: a ``train_step``, ``compute_loss``, ``compile`` or ``fit`` of the class of the given
    one is not taken over (the placement says so), nor is what it was compiled with. Write such a method in a
    ``keras.Model`` that holds the prepared one.

    Args:
        model: a float Keras model: functional, Sequential, nested, or subclassed of layers and ``keras.ops``.
        target: name of a file in ``targets/``, or the path of an AIMET-style JSON config.
        rules: ordered; the first rule that matches an op and has the key decides. Keys: ``match`` (glob on op names),
            ``quantize``, ``relu6``, ``weight_bits`` and ``activation_bits`` (2 to 8).
        relu6: kinds of activation that become ReLU6, but for model outputs.
        ranges: ``moving_average``, ``learned`` (by gradient, LSQ and LSQ+; kernels' scales, too) or ``fixed``
            (calibration's stay).
        decay: of the moving average.
        observe_fraction: share of each batch by which ranges follow.
        freeze_after: training step after which ranges stay, learned scales of kernels with them.
        ranges_rate_multiplier: factor on the optimizer's learning rate for learned ranges and kernels' scales, whatever
            the optimizer (weight decay aside, which knows no rate of its own for them).
        strict: a weighted op that stays float without a rule that asks for it is an error.
        activation: integers of the activations, where the target offers a choice (``sima``: ``uint8``, ``int8``).

    Raises:
        TfqatError: nothing to quantize, a rule without a match, an unknown target or option, a prepared model.
    """
    options = RangeOptions(ranges, decay, observe_fraction, freeze_after, ranges_rate_multiplier)
    plan = plan_for(model, target, rules, relu6, activation)
    check_plan(plan, options, strict)
    return quantize(plan.graph, plan.placement, options)


def quantize(
    graph: Graph,
    plan: Placement,
    options: RangeOptions = RangeOptions(),
    held_kernels: Collection[str] = (),
    tfmot_kernels: bool = False,
) -> QuantizedModel:
    """The model that a graph becomes by a plan made for it.

    Args:
        graph: a float model, viewed, in the form that the plan's target runs.
        plan: its Placement.
        options: how Quantizers learn.
        held_kernels: names of the ops whose kernel scale is set from outside (``QuantizedKernel.hold_scale``).
        tfmot_kernels: whether evaluation runs the TensorFlow kernels that TFMOT and tf_keras run, bit for bit.
    """

    def scale_by(op: Op) -> str:
        return "held" if op.name in held_kernels else "learned" if options.ranges == "learned" else "max"

    graph = replace_ops(graph, lambda op: _quantized(op, plan, scale_by(op), options, tfmot_kernels))
    found = _range_ops(graph, plan, options, tfmot_kernels)
    graph = insert_after(graph, found, keep_outputs=_float_outputs(graph, plan))
    return build(absorb(graph), partial(QuantizedModel, placement=plan))


def relu6_model(model: keras.Model, rules: Rules = (), relu6: Collection[str] = DEFAULT) -> keras.Model:
    """The float model with its activations converted and nothing quantized: what the conversion alone costs."""
    graph, _ = to_relu6(view(model), relu6, rules_from(rules))
    return build(graph)


def check_plan(planned: Plan, options: RangeOptions, strict: bool) -> None:
    """Raises TfqatError where a plan quantizes nothing, or what it leaves float is an error under ``strict``."""
    graph, plan = planned.graph, planned.placement
    if not plan.weights:
        raise _nothing_to_quantize(graph, plan)
    for op in graph.ops:
        if op.source.config.get("renorm"):
            raise TfqatError(f"{op.name!r}: BatchNormalization with renorm=True cannot be folded; set renorm=False.")
    uneven = [op for op, scheme in plan.weights.items() if not scheme.symmetric]
    if options.ranges == "learned" and uneven:
        raise TfqatError(
            f"ranges='learned' learns scales of kernels, which needs symmetric kernels; those of {some(uneven)} are "
            f"asymmetric by {plan.target}. Use ranges='moving_average'."
        )
    asked = [row for row in plan.rows if row.state == "float" and not row.output and not row.reason.startswith("rule")]
    floats = [row for row in asked if row.macs or row.kind in OTHER_WEIGHTED]
    if strict and floats:
        lines = "\n".join(f"  {row.op} ({row.kind}): {row.reason}" for row in floats)
        raise TfqatError(
            f"strict: these weighted ops would stay float:\n{lines}\nAllow each by a rule, or unset strict."
        )


def _nothing_to_quantize(graph: Graph, plan: Placement) -> TfqatError:
    kinds = ", ".join(sorted({op.kind for op in graph.ops})) or "none"
    heavy = sorted((row for row in plan.rows if row.macs), key=lambda row: -row.macs)[:3]
    why = "".join(f"\n  {row.op} ({row.kind}): {row.reason}" for row in heavy)
    return TfqatError(
        f"Model {graph.name!r} has no layer that {plan.target} can quantize: its ops are of the kinds {kinds}; the "
        f"rules and the float output layers leave none. `tfqat inspect` says why for each{':' if why else '.'}{why}"
    )


def _quantized(op: Op, plan: Placement, scale_by: str, options: RangeOptions, tfmot_kernels: bool) -> Op:
    """The op with a quantized kernel, or a BatchNorm that can be frozen; other ops as they are."""
    source = op.source
    if op.name in plan.weights:
        scheme = plan.weights[op.name]
        config = {**source.config, "weight_scheme": scheme, "scale_by": scale_by}
        # Calls of one layer share it as long as they agree on how its kernel is quantized.
        key = (source.key, "quantized", scheme)
        values = source.values
        if scale_by == "learned":
            config["rate_multiplier"] = options.rate_multiplier
            closest = encoding_of_least_error(scheme, keras.ops.convert_to_numpy(values[0]))
            values = (*values, learned_variable(closest.scale, scheme, options.rate_multiplier))
        return replace(op, source=Source(QUANTIZED_LAYERS[op.kind], config, values, key))
    if source.cls is keras.layers.BatchNormalization:
        config = {**source.config, "fused_kernel": tfmot_kernels}
        return replace(op, source=replace(source, cls=FreezableBatchNormalization, config=config, built=None))
    return op


def _range_ops(graph: Graph, plan: Placement, options: RangeOptions, half_up: bool) -> dict[str, Op]:
    """Tensor -> the Quantizer or observer to put after it."""
    found = {}
    for tensor, scheme in plan.activations.items():
        found[tensor] = _range_op(Quantizer, graph, tensor, scheme, plan, options, half_up=half_up)
    for tensor in plan.observed:
        scheme = next(iter(plan.activations.values()))
        found[tensor] = _range_op(RangeObserver, graph, tensor, scheme, plan, options)
    return found


def _range_op(
    cls: type, graph: Graph, tensor: str, scheme: Scheme, plan: Placement, options: RangeOptions, **own: Any
) -> Op:
    kind = "quantizer" if cls is Quantizer else "range_observer"
    how = "moving_average" if cls is RangeObserver and options.ranges == "learned" else options.ranges
    config = {
        "scheme": scheme,
        "ranges": how,
        "decay": options.decay,
        "observe_fraction": options.observe_fraction,
        "freeze_after": options.freeze_after,
        "rate_multiplier": options.rate_multiplier,
        "nonnegative": is_nonnegative(graph, tensor),
        "group": plan.groups.get(tensor),
        "fixed_range": plan.fixed.get(tensor),
        **own,
    }
    name = f"{tensor}/{kind}"
    return Op(name, name, kind, (tensor,), (name,), Source(cls, config, (), name))


def _float_outputs(graph: Graph, plan: Placement) -> list[str]:
    tail = {row.op for row in plan.rows if row.output}
    return [tensor for tensor in graph.outputs if (op := graph.producer(tensor)) is not None and op.name in tail]
