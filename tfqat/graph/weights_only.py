"""Weights only: kernels of few bits that float ops read, as a rule with ``quantize: weights`` asks for."""

from __future__ import annotations

from collections.abc import Iterable

from tfqat.errors import TfqatError
from tfqat.graph.placement import Placement
from tfqat.graph.rows import Row
from tfqat.graph.rules import WEIGHTS, Rule, decide
from tfqat.graph.target import Target


def check_weights_only(rules: Iterable[Rule], plan: Placement, target: Target) -> None:
    """Refuses what the target does not read beside float activations.

    Raises:
        TfqatError: names the op, its kind and bits, and what the target does read.
    """
    for rule in rules:
        if rule.quantize != WEIGHTS:
            continue
        rows = [row for row in plan.rows if decide(rules, row.op, "quantize") == (WEIGHTS, rule)]
        weighted = [row for row in rows if row.op in plan.weights]
        if not weighted:
            raise TfqatError(
                f"Rule {rule.match!r} asks to quantize weights alone, but covers no op with a kernel that "
                f"{target.name} quantizes, or an earlier rule decides. `tfqat inspect` shows the placement."
            )
        for row in weighted:
            _check(row, plan, target, rule)


def _check(row: Row, plan: Placement, target: Target, rule: Rule) -> None:
    bits, possible = plan.weights[row.op].bits, target.weights_only.get(row.kind, frozenset())
    if bits in possible:
        return
    known = [f"{kind} with {some} bits" for kind, numbers in target.weights_only.items() for some in sorted(numbers)]
    raise TfqatError(
        f"Rule {rule.match!r} asks for weights alone of {row.op!r} ({row.kind}), of {bits} bits; {target.name} reads "
        f"{' and '.join(known) or 'no kernel'} beside float activations. "
        + ("Give its kernel so many (weight_bits)." if possible else "Leave it out of the rule.")
    )
