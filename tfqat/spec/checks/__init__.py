"""Checks: rules that compare several values of a spec; each says what is wrong at which key, one file a section.

A check runs where all the keys that it reads are free of other mistakes, so that one report names everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from tfqat.graph.rules import Rule
from tfqat.spec import keys
from tfqat.spec.checks import data, export, model, quantization, training
from tfqat.spec.document import Path
from tfqat.spec.report import Problem

CHECKS = (*model.CHECKS, *data.CHECKS, *training.CHECKS, *quantization.CHECKS, *export.CHECKS)


def problems(values: Mapping[str, Any], faulty: set[Path]) -> Iterator[Problem]:
    """The Problems that the checks find in ``values``, of which the paths in ``faulty`` are wrong already."""
    for check in CHECKS:
        paths: list[Path] = [tuple(key.split(".")) for key in check.reads]
        if any(_related(path, wrong) for path in paths for wrong in faulty):
            continue
        message = check.find(*(keys.value_or_default(path, values) for path in paths))
        if message:
            yield Problem(tuple(check.key.split(".")), message)
    yield from _empty_rules(values, faulty)


def _related(path: Path, wrong: Path) -> bool:
    """Whether one is the other or lies within it. A mistake in a sibling (an unknown key) is no obstacle."""
    length = min(len(path), len(wrong))
    return path[:length] == wrong[:length]


def _empty_rules(values: Mapping[str, Any], faulty: set[Path]) -> Iterator[Problem]:
    base: Path = ("quantization_config", "rules")
    rules = keys.value_at(base, values)
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        path = (*base, index)
        if any(_related(path, wrong) for wrong in faulty):
            continue
        asked = [field.name for field in fields(Rule) if field.name != "match"]
        if all(rule.get(key) is None for key in asked):
            expected = f"one of {', '.join(asked)}"
            yield Problem(path, f"received a rule for {rule['match']!r} that asks for nothing; expected {expected}")
