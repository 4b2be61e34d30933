"""Document: a YAML file as plain values, with the line of each key.

Plain words are read by the core rules of YAML 1.2: only ``true`` and ``false`` are booleans (``yes`` is a text),
``010`` is a text rather than eight, ``1e-3`` is a number and dates stay texts. Keys are always texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]

# A spec has some fifty values. The bound stops aliases that refer to aliases, which grow exponentially when expanded.
MAX_NODES = 10_000
MAX_DEPTH = 20


class DocumentError(ValueError):
    """The text is no YAML mapping; ``line`` counts from 1, where it is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Document:
    """One YAML text.

    Attributes:
        values: what it says.
        lines: path of a key or list entry -> its line, counted from 1.
        twice: path of a key that stands twice in its mapping -> the lines of both.
    """

    values: Any
    lines: dict[Path, int]
    twice: dict[Path, tuple[int, int]]


# Tag, the plain words that have it, and their first letters.
_WORDS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader (no tag makes it run code) with the words of YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes each text that `_Loader`, or a YAML 1.1 reader, would take for something else."""


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _tag, _pattern, _firsts in _WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_firsts))


def parse(text: str) -> Document:
    """The Document in ``text``.

    Raises:
        DocumentError: a syntax error, too many values, or anything but a mapping at the top.
    """
    document = _parsed(text)
    if document.values is None:
        raise DocumentError("the file is empty; expected a mapping of keys such as results_dir: results/digits")
    if not isinstance(document.values, dict):
        received = "a list" if isinstance(document.values, list) else f"the single value {str(document.values)[:40]!r}"
        raise DocumentError(f"received {received}, expected a mapping of keys such as results_dir: results/digits")
    return document


def parse_value(text: str) -> Any:
    """The value in ``text``, as it would stand after a key.

    Raises:
        DocumentError: a syntax error, or a key that stands twice.
    """
    document = _parsed(text)
    for path in document.twice:
        raise DocumentError(f"{dotted(path)} stands twice, expected each key once")
    return document.values


def text_of(values: Any) -> str:
    """``values`` as YAML that `parse` reads back to the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def dotted(path: Path) -> str:
    """``("rules", 0, "match")`` as ``rules[0].match``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _parsed(text: str) -> Document:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Path, int] = {}
        twice: dict[Path, tuple[int, int]] = {}
        if node is None:
            return Document(None, lines, twice)
        for path, line in _walk(node):
            if path in lines:
                twice[path] = (lines[path], line)
            lines[path] = line
        return Document(loader.construct_document(node), lines, twice)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"YAML syntax error: {reason}", mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise DocumentError(f"YAML syntax error: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DocumentError("the YAML is nested too deeply") from error
    except (ValueError, OverflowError) as error:
        # A tag that contradicts its value (!!int abc), or an integer of thousands of digits.
        raise error if isinstance(error, DocumentError) else DocumentError(f"YAML value error: {error}") from error


def _walk(root: yaml.Node) -> Iterator[tuple[Path, int]]:
    """Each key and list entry with its line, aliases followed; keys become texts on the way."""
    waiting: list[tuple[Path, yaml.Node]] = [((), root)]
    for _ in range(MAX_NODES):
        if not waiting:
            return
        path, node = waiting.pop()
        if len(path) > MAX_DEPTH:
            raise DocumentError(f"the YAML is nested deeper than {MAX_DEPTH} levels", node.start_mark.line + 1)
        for key, line, value in _children(node):
            yield (*path, key), line
            waiting.append(((*path, key), value))
    raise DocumentError(f"the YAML has more than {MAX_NODES} values once its aliases are followed")


def _children(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield index, value.start_mark.line + 1, value
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                key.tag = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG
                yield key.value, key.start_mark.line + 1, value
