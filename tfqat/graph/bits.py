"""Bits: schemes with the number of bits that rules ask for, in place of the target's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.graph.block import Match
from tfqat.graph.rules import Rule, decide


def weights_of_bits(schemes: Mapping[str, Scheme], rules: Iterable[Rule]) -> dict[str, Scheme]:
    """Op -> Scheme of its kernel, with the bits that the first rule on the op gives (``weight_bits``)."""
    asked = {name: found for name in schemes if (found := decide(rules, name, "weight_bits")) is not None}
    return {name: replace(s, bits=asked[name][0]) if name in asked else s for name, s in schemes.items()}


def activations_of_bits(
    schemes: Mapping[str, Scheme],
    rules: Iterable[Rule],
    matches: Iterable[Match],
    groups: Mapping[str, str],
    fixed: Iterable[str],
) -> dict[str, Scheme]:
    """Tensor -> Scheme, with the bits that rules on the ops of its block give (``activation_bits``).

    The tensors of a group have the bits of the one that a rule speaks of.

    Raises:
        TfqatError: rules that give the tensors of one group different bits, or bits to a tensor whose range the device
            prescribes.
    """
    ends = {match.output: match for match in matches}
    asked = {tensor: found for tensor in schemes if (found := _asked(tensor, ends.get(tensor), rules)) is not None}
    prescribed = [tensor for tensor in fixed if tensor in asked]
    if prescribed:
        wanted, rule = asked[prescribed[0]]
        raise TfqatError(
            f"Rule {rule.match!r} asks for {wanted} bits of {prescribed[0]!r}, whose range and integers the device "
            "prescribes. Leave it out of the rule."
        )
    shared = _of_groups(asked, groups)
    bits = {tensor: shared.get(groups.get(tensor, ""), asked.get(tensor)) for tensor in schemes}
    return {tensor: replace(s, bits=found[0]) if (found := bits[tensor]) else s for tensor, s in schemes.items()}


def check_bits(rules: Iterable[Rule], weights: Mapping[str, Scheme], activations: Mapping[str, Scheme]) -> None:
    """Raises TfqatError for a rule whose bits no kernel, or no tensor, has."""
    for rule in rules:
        for key, schemes, what in (("weight_bits", weights, "kernel"), ("activation_bits", activations, "tensor")):
            wanted = getattr(rule, key)
            if wanted is not None and not any(scheme.bits == wanted for scheme in schemes.values()):
                raise TfqatError(
                    f"Rule {rule.match!r} asks for {key}: {wanted}, but no quantized {what} is covered by it alone; "
                    "an earlier rule decides, or what it matches stays float. `tfqat inspect` shows the placement."
                )


def _asked(tensor: str, match: Match | None, rules: Iterable[Rule]) -> tuple[int, Rule] | None:
    """The bits that the first rule on an op of the block gives, its last op first; of an input, on the input."""
    names = [op.name for op in reversed(match.ops)] if match is not None else [tensor]
    return next((found for name in names if (found := decide(rules, name, "activation_bits")) is not None), None)


def _of_groups(asked: Mapping[str, tuple[int, Rule]], groups: Mapping[str, str]) -> dict[str, tuple[int, Rule]]:
    found: dict[str, tuple[int, Rule]] = {}
    for tensor, wanted in asked.items():
        name = groups.get(tensor)
        if name is None:
            continue
        before = found.setdefault(name, wanted)
        if before[0] != wanted[0]:
            raise TfqatError(
                f"Rules {before[1].match!r} and {wanted[1].match!r} ask for {before[0]} and {wanted[0]} bits of "
                f"tensors that share one range (group {name!r}, {tensor!r} among them). Give all of the group the same."
            )
    return found
