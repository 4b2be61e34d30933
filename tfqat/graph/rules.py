"""Rule: what the user asks of the ops whose names match a pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph

# Of Rule.quantize: the kernel alone.
WEIGHTS = "weights"


@dataclass(frozen=True)
class Rule:
    """What is asked of the ops that ``match`` names.

    Attributes:
        match: a glob on op names; the name of a nested model or of a composite layer covers all inside it.
        quantize: False keeps the op in float; True quantizes it where the target could do either; ``weights``
            quantizes its kernel alone, of so few bits as the target runs beside float activations.
        relu6: whether the activation may become ReLU6.
        weight_bits: of the kernel, 2 to 8.
        activation_bits: of what leaves the block that the op is in, 2 to 8; tensors that share its range follow.
    """

    match: str
    quantize: bool | str | None = None
    relu6: bool | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None

    def covers(self, name: str) -> bool:
        """Whether the op of that name, or something that it is part of, matches."""
        parts = name.split("/")
        return any(fnmatchcase("/".join(parts[: end + 1]), self.match) for end in range(len(parts)))


def rules_from(items: Iterable[Rule | Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Rules from their dictionaries, whose keys are those of the spec.

    Raises:
        TfqatError: an unknown key, a value of another type, a rule that asks for nothing.
    """
    return tuple(item if isinstance(item, Rule) else _rule_from(number, item) for number, item in enumerate(items))


def check_all_match(rules: Iterable[Rule], graph: Graph) -> None:
    """Raises TfqatError for rules that match no op and no input, with near names."""
    names = [*(op.name for op in graph.ops), *graph.inputs]
    unused = [rule for rule in rules if not any(rule.covers(name) for name in names)]
    if unused:
        raise TfqatError("\n".join(_unused_message(rule, names) for rule in unused))


def decide(rules: Iterable[Rule], name: str, key: str) -> tuple[Any, Rule] | None:
    """The value that the first covering rule gives ``key``, and that rule; None where no rule speaks of it."""
    for rule in rules:
        if rule.covers(name) and getattr(rule, key) is not None:
            return getattr(rule, key), rule
    return None


def _rule_from(number: int, item: Mapping[str, Any]) -> Rule:
    known = [field.name for field in fields(Rule)]
    if not isinstance(item, Mapping):
        raise TfqatError(f"rules[{number}]: expected a mapping with keys {', '.join(known)}, received {item!r}.")
    unknown = [key for key in item if key not in known]
    if unknown:
        near = get_close_matches(str(unknown[0]), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(f"rules[{number}]: unknown key {unknown[0]!r}, expected {', '.join(known)}.{hint}")
    if not isinstance(item.get("match"), str) or not item["match"]:
        raise TfqatError(f"rules[{number}].match: expected a pattern such as 'head_*', received {item.get('match')!r}.")
    for key, word in (("quantize", WEIGHTS), ("relu6", None)):
        value = item.get(key)
        if not isinstance(value, bool | None) and (word is None or value != word):
            expected = f"true, false or {word!r}" if word else "true or false"
            raise TfqatError(f"rules[{number}].{key}: expected {expected}, received {value!r}.")
    for key in ("weight_bits", "activation_bits"):
        bits = item.get(key)
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8):
            raise TfqatError(f"rules[{number}].{key}: expected a whole number from 2 to 8, received {bits!r}.")
    if all(item.get(key) is None for key in known if key != "match"):
        raise TfqatError(f"rules[{number}]: asks for nothing; give one of {', '.join(known[1:])}.")
    return Rule(**item)


def _unused_message(rule: Rule, names: list[str]) -> str:
    near = get_close_matches(rule.match, names, n=3, cutoff=0.4)
    hint = f"near names: {', '.join(near)}" if near else f"the first names are {', '.join(names[:5])}"
    return f"Rule {rule.match!r} matches no op of the model; {hint}. `tfqat inspect` lists all names."
