"""Keys: the tree of valid YAML keys, read off the schema; it answers what may stand where, and the defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from tfqat.spec import names
from tfqat.spec.document import Path, dotted
from tfqat.spec.schema import Spec
from tfqat.spec.types import Section


def fields(section: type[Section]) -> dict[str, FieldInfo]:
    """YAML key -> field of one section."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_at(path: Path, values: Any) -> type[Section] | None:
    """The section that stands at ``path``, or None where a plain value stands there.

    ``values`` is the whole document, which decides by its ``kind`` which form a section has.
    """
    section: type[Section] | None = Spec
    for depth, key in enumerate(path):
        if isinstance(key, int):
            continue  # an entry of a list of sections is such a section
        field = fields(section).get(key) if section else None
        if field is None:
            return None
        section = _chosen(_sections(field.annotation), value_at(path[: depth + 1], values))
    return section


def value_at(path: Path, values: Any) -> Any:
    """The value at ``path`` in plain ``values``; None where there is none."""
    for key in path:
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return values


def value_or_default(path: Path, values: Any) -> Any:
    """The value at ``path``, or the schema's default where the document is silent."""
    parent = value_at(path[:-1], values)
    if isinstance(parent, dict) and path[-1] in parent:
        return parent[path[-1]]
    section = section_at(path[:-1], values)
    field = fields(section).get(str(path[-1])) if section else None
    return None if field is None or field.is_required() else field.get_default(call_default_factory=True)


def nearest(path: Path, values: Any) -> str | None:
    """The valid dotted key most like the unknown one at ``path``: first among its siblings, then anywhere."""
    section, word = section_at(path[:-1], values), str(path[-1])
    sibling = names.near(word, fields(section), cutoff=0.5) if section else None
    if sibling:
        return dotted((*path[:-1], sibling))
    # A key of another kind of this section would be the same dotted key, which is no help.
    others = [key for key in all_keys() if key != dotted(path)]
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(others)}
    found = names.near(word, elsewhere, cutoff=0.75)
    return elsewhere[found] if found else None


def all_keys(section: type[Section] = Spec, prefix: Path = ()) -> Iterator[str]:
    """Each valid dotted key of all forms of all sections; a list's entries are written with ``[0]``."""
    for key, field in fields(section).items():
        yield dotted((*prefix, key))
        inner = (*prefix, key, 0) if get_origin(field.annotation) is tuple else (*prefix, key)
        for child in _sections(field.annotation):
            yield from all_keys(child, inner)


def kinds(union: Any) -> tuple[str, ...]:
    """The words that choose between the forms of a section."""
    return tuple(_by_kind(_sections(union)))


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections named in a type such as ``tuple[Rule, ...]`` or ``Digits | Npz``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _chosen(sections: list[type[Section]], value: Any) -> type[Section] | None:
    """The form that the ``kind`` in ``value`` names, or the only form there is."""
    if len(sections) < 2:
        return sections[0] if sections else None
    kind = value.get("kind") if isinstance(value, dict) else None
    return _by_kind(sections).get(kind) if isinstance(kind, str) else None


def _by_kind(sections: list[type[Section]]) -> dict[str, type[Section]]:
    return {get_args(section.model_fields["kind"].annotation)[0]: section for section in sections}
