"""With rules: a spec's text with another results folder and rules before its own, its comments kept.

The text is changed in two places and read again: where that gives not the spec that is meant (overrides, aliases,
a section in braces), the whole spec is written instead, without the comments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tfqat.spec.document import DocumentError, parse, text_of
from tfqat.spec.load import dump_spec
from tfqat.spec.schema import Spec

SECTION, RULES, FOLDER = "quantization_config", "rules", "results_dir"


def with_rules(
    text: str | None,
    spec: Spec,
    rules: Sequence[Mapping[str, Any]],
    reasons: Sequence[str],
    comments: Sequence[str],
) -> str:
    """The text of ``spec``, whose first rules are ``rules``.

    Args:
        text: the file that it came from; None without one.
        spec: what the text is to say.
        rules: those that are new.
        reasons: a comment for each.
        comments: lines at the top.
    """
    head = "".join(f"# {line}\n" for line in comments) + "\n"
    for source in (text, dump_spec(spec.model_copy(update={"quantization": _without(spec, len(rules))}))):
        changed = None if source is None else _changed(source, spec.results_dir, rules, reasons)
        if changed is not None and _says(changed, spec):
            return head + changed
    return head + dump_spec(spec)


def _without(spec: Spec, count: int) -> Any:
    return spec.quantization.model_copy(update={"rules": spec.quantization.rules[count:]})


def _says(text: str, spec: Spec) -> bool:
    try:
        return Spec.model_validate(parse(text).values) == spec
    except (DocumentError, ValueError):
        return False


def _changed(text: str, folder: str, rules: Sequence[Mapping[str, Any]], reasons: Sequence[str]) -> str | None:
    """None where the text has not the form that this can be done in."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    value = _value(root, FOLDER)
    if value is None:
        return None
    edits = [(value.start_mark.index, value.end_mark.index, _plain(folder))]
    if rules:
        edit = _rules_edit(text, root, rules, reasons)
        if edit is None:
            return None
        edits.append(edit)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _rules_edit(
    text: str, root: yaml.MappingNode, rules: Sequence[Mapping[str, Any]], reasons: Sequence[str]
) -> tuple[int, int, str] | None:
    section = _value(root, SECTION)
    if section is None:
        lines = f"{SECTION}:\n  {RULES}:\n{_lines(rules, reasons, '    ')}"
        return len(text), len(text), lines if text.endswith("\n") else f"\n{lines}"
    if not isinstance(section, yaml.MappingNode) or section.flow_style:
        return None
    before = _value(section, RULES)
    first = section.value[0][0].start_mark
    indent = " " * first.column
    if before is None:
        start = text.rindex("\n", 0, first.index) + 1
        return start, start, f"{indent}{RULES}:\n{_lines(rules, reasons, f'{indent}  ')}"
    if not isinstance(before, yaml.SequenceNode):
        return None
    if not before.flow_style and before.value:
        start = text.rindex("\n", 0, before.start_mark.index) + 1
        return start, start, _lines(rules, reasons, " " * before.start_mark.column)
    old = parse(text).values[SECTION][RULES]
    lines = _lines(rules, reasons, f"{indent}  ") + _lines(old, [""] * len(old), f"{indent}  ")
    start = len(text[: before.start_mark.index].rstrip(" "))
    return start, before.end_mark.index, f"\n{lines}".rstrip("\n")


def _value(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in node.value if key.value == name), None)


def _lines(rules: Sequence[Mapping[str, Any]], reasons: Sequence[str], indent: str) -> str:
    found = []
    for rule, reason in zip(rules, reasons, strict=True):
        body = ", ".join(f"{key}: {_plain(value)}" for key, value in rule.items())
        found.append(f"{indent}- {{{body}}}" + (f"  # {reason}" if reason else ""))
    return "".join(f"{line}\n" for line in found)


def _plain(value: Any) -> str:
    """A value as it may stand in braces: texts in quotes."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return text_of([value]).removeprefix("- ").rstrip("\n")
