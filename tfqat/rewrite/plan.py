"""Plan: a float model as a Graph in the form that a target runs, and the Placement decided for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph
from tfqat.graph.place import place
from tfqat.graph.placement import Placement
from tfqat.graph.rules import Rule, rules_from
from tfqat.graph.spelling import spell_out
from tfqat.graph.target import Target
from tfqat.rewrite.fold import fold_batch_norms
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.relu6 import DEFAULT, to_relu6
from tfqat.targets import load_target
from tfqat.view.view import view

Rules = Iterable[Rule | Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What is going to be rewritten, and how."""

    graph: Graph
    placement: Placement
    rules: tuple[Rule, ...]


def plan_for(
    model: keras.Model,
    target: str | Target,
    rules: Rules = (),
    relu6: Collection[str] = DEFAULT,
    activation: str | None = None,
) -> Plan:
    """The plan for a float model; nothing is rewritten.

    Raises:
        TfqatError: a prepared model, a rule without a match, an unknown target, activation or choice.
    """
    if isinstance(model, QuantizedModel):
        raise TfqatError(f"Model {model.name!r} is prepared already; give tfqat.prepare the float model.")
    chosen = rules_from(rules)
    accelerator = target if isinstance(target, Target) else load_target(target)
    accelerator = with_activation(accelerator, activation)
    graph, changes = to_relu6(view(model), relu6, chosen)
    graph, folded = _folded_first(spell_out(graph, accelerator.spelled_out), accelerator)
    plan = place(graph, accelerator, chosen, (*_left_out(model), *changes, *folded))
    return Plan(graph, replace(plan, changes=(*plan.changes, *_parted(graph, plan))), chosen)


def placement(
    model: keras.Model,
    target: str = "tensorrt",
    rules: Rules = (),
    relu6: Collection[str] = DEFAULT,
    activation: str | None = None,
) -> Placement:
    """What ``prepare`` would do to the model, and why; nothing is rewritten. Prints as a table.

    Raises:
        TfqatError: a rule without a match, an unknown target, activation or choice.
    """
    if isinstance(model, QuantizedModel):
        return model.placement
    return plan_for(model, target, rules, relu6, activation).placement


def with_activation(target: Target, choice: str | None) -> Target:
    """The target with the integers that the user chose for activations.

    Raises:
        TfqatError: it does not offer them.
    """
    if choice is None:
        return target
    if choice not in target.activation_choices:
        offered = ", ".join(target.activation_choices) or "no choice"
        near = get_close_matches(str(choice), target.activation_choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(f"activation: target {target.name} offers {offered}, received {choice!r}.{hint}")
    return replace(target, activation=target.activation_choices[choice])


def _left_out(model: keras.Model) -> tuple[str, ...]:
    """A line for each method of the model's class by which ``fit`` would train it another way than Keras does."""
    stock = {name: getattr(keras.Model, name) for name in ("train_step", "compute_loss", "compile", "fit")}
    own = [name for name, method in stock.items() if getattr(type(model), name) is not method]
    return tuple(
        f"{type(model).__name__}.{name}: not taken over, the prepared model trains as keras.Model does; write it "
        "around the prepared model"
        for name in own
    )


def _parted(graph: Graph, plan: Placement) -> tuple[str, ...]:
    """A line for each layer whose calls differ in how its kernel is quantized, and cannot train one any longer."""
    lines = []
    for names in _calls(graph):
        schemes = [plan.weights.get(name) for name in names]
        floats = [name for name, scheme in zip(names, schemes, strict=True) if scheme is None]
        if floats and len(floats) < len(names):
            lines.append(
                f"{names[0]}: {', '.join(floats)} shares its weights and stays float, so it trains weights of its own "
                "from now on"
            )
        if len(set(schemes) - {None}) > 1:
            bits = ", ".join(
                f"{name} {scheme.bits} bits" for name, scheme in zip(names, schemes, strict=True) if scheme is not None
            )
            lines.append(f"{names[0]}: its calls differ in their kernels ({bits}), so they train weights of their own")
    return tuple(lines)


def _calls(graph: Graph) -> list[list[str]]:
    """The names of the calls of each layer that has weights."""
    calls: dict[Any, list[str]] = {}
    for op in graph.ops:
        if op.source.values:
            calls.setdefault(op.source.key, []).append(op.name)
    return list(calls.values())


def _folded_first(graph: Graph, target: Target) -> tuple[Graph, tuple[str, ...]]:
    """The graph with BatchNorm folded where the kernel after folding is what gets one scale; a line a fold."""
    after = fold_batch_norms(graph, lambda op: target.folds_first(op.kind))
    left = {op.name for op in after.ops}
    gone = [op for op in graph.ops if op.name not in left]
    lines = (f"{op.name}: folded into {op.inputs[0]}, whose kernel has one scale" for op in gone)
    return after, (*lines, *_unshared(graph, after))


def _unshared(before: Graph, after: Graph) -> tuple[str, ...]:
    """A line for each layer whose calls, folded with BatchNorms of their own, cannot train one kernel any longer."""
    keys = {op.name: op.source.key for op in after.ops}
    parted = (names for names in _calls(before) if len({keys[name] for name in names if name in keys}) > 1)
    return tuple(
        f"{names[0]}: its calls {', '.join(names)} have different kernels once BatchNorm is folded into them, so they "
        "train weights of their own from now on"
        for names in parted
    )
