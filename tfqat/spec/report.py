"""Problem: one mistake in a spec (dotted key, what was received, what was expected); SpecError: all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tfqat.errors import TfqatError
from tfqat.spec import keys, names
from tfqat.spec.datasets import Dataset
from tfqat.spec.document import Path, dotted
from tfqat.spec.types import Section

# pydantic's error type -> what was expected; the braces are filled from the error's context.
_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of: {expected}",
    "too_short": "at least {min_length} entry",
    "too_long": "{max_length} entries",
    "union_tag_invalid": "one of: {expected_tags}",
    "tfqat": "{expected}",
}
_MEANT_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_NOT_A_SECTION = {"model_type", "model_attributes_type", "dict_type"}
_MISSING = {"missing", "union_tag_not_found"}
_TYPE_NAMES: dict[type, str] = {
    str: "a text",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        path: the key, as a path from the top of the document; empty where it is the document itself.
        message: what was received and what was expected.
        place: where it was written, such as ``line 3``; empty where it is nowhere.
    """

    path: Path
    message: str
    place: str = ""

    @property
    def key(self) -> str:
        """The dotted YAML key."""
        return dotted(self.path)

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place and self.path else self.place
        return f"{self.key}{place}: {self.message}" if self.key or place else self.message


class SpecError(TfqatError):
    """A spec that is not valid; its text names every mistake at once.

    Attributes:
        source: the file, or what else was read.
        problems: one for each mistake.
    """

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = [f"{source}: {count} error{'s' if count != 1 else ''}"]
        super().__init__("\n".join(lines + [f"  {problem}" for problem in self.problems]))


def problems_of(error: ValidationError, values: Mapping[str, Any]) -> Iterator[Problem]:
    """The Problems in what pydantic found in ``values``."""
    details = error.errors(include_url=False)
    paths = [_path(detail, values) for detail in details]
    for path, detail in zip(paths, details, strict=True):
        # A list whose entries are wrong is also reported as too short; the entries say more.
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        if not (detail["type"] == "too_short" and deeper):
            yield Problem(path, _message(path, dict(detail), values))


def shown(value: Any) -> str:
    """``value`` as it would be written in YAML, shortened, with its type where the writing alone misleads."""
    if value is None:
        return "null (nothing)"
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, float) else repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{text} ({_TYPE_NAMES[type(value)]})" if type(value) in _TYPE_NAMES else text


def _path(detail: Mapping[str, Any], values: Mapping[str, Any]) -> Path:
    """pydantic's location without the ``kind`` that it adds below a section of several forms.

    A wrong or missing ``kind`` is placed at that key, which pydantic does not.
    """
    path: Path = ()
    for part in detail["loc"]:
        here = keys.value_at(path, values)
        added = isinstance(here, dict) and part == here.get("kind") and part not in here
        path = path if added else (*path, part)
    return (*path, "kind") if detail["type"].startswith("union_tag") else path


def _message(path: Path, detail: dict[str, Any], values: Mapping[str, Any]) -> str:
    kind, received, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, received, values)
    if kind in _MISSING:
        return f"is missing; expected {_wanted(path, values)}"
    if kind in _NOT_A_SECTION:
        expected = _wanted(path, values)
    else:
        expected = _expected(kind, context) if kind in _EXPECTED else detail["msg"]
    return f"received {shown(_tag(kind, received))}, expected {expected}{_hint(kind, received, context)}"


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    return _EXPECTED[kind].format(**{name: _word(word) for name, word in context.items()})


def _unknown_key(path: Path, received: Any, values: Mapping[str, Any]) -> str:
    valid = keys.fields(keys.section_at(path[:-1], values) or Section)
    nearest = keys.nearest(path, values)
    near = f"nearest valid key: {nearest}; " if nearest else ""
    kind = (keys.value_at(path[:-1], values) or {}).get("kind")
    of_kind = f" of kind {kind}" if "kind" in valid else ""
    return f"unknown key{of_kind}, received {shown(received)}; {near}expected one of: {', '.join(valid)}"


def _tag(kind: str, received: Any) -> Any:
    return received.get("kind") if kind == "union_tag_invalid" else received


def _hint(kind: str, received: Any, context: Mapping[str, Any]) -> str:
    """What the user most likely meant."""
    if kind == "union_tag_invalid" and isinstance(received.get("kind"), str):
        return _meant(received["kind"], context["expected_tags"])
    if kind == "literal_error" and isinstance(received, str):
        return _meant(received, context["expected"])
    if kind == "bool_type" and str(received).lower() in _MEANT_BOOLEANS:
        return f"; did you mean {_MEANT_BOOLEANS[str(received).lower()]}?"
    if kind in ("int_type", "float_type") and isinstance(received, str) and _is_number(received):
        return "; a number stands without quotes"
    if kind == "string_type" and isinstance(received, (int, float)):
        return f'; a text that looks like a number stands in quotes: "{received}"'
    return f"; did you mean {context['nearest']}?" if "nearest" in context else ""


def _meant(word: str, choices: str) -> str:
    nearest = names.near(word, _word(choices).split(", "), cutoff=0.5)
    return f"; did you mean {nearest}?" if nearest else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wanted(path: Path, values: Mapping[str, Any]) -> str:
    """What stands at ``path`` in a valid spec, where nothing or a thing of another shape does."""
    section = keys.section_at(path, values)
    if section:
        return f"a mapping with the keys {', '.join(keys.fields(section))}"
    if path[:1] == ("dataset_config",) and not keys.section_at(path[:1], values):
        kinds = f"one of: {', '.join(keys.kinds(Dataset))}"
        return kinds if path[1:] else f"a mapping with the key kind ({kinds}) and the keys of that kind"
    # Lists of a fixed length hold numbers; all the required keys that are no sections are texts.
    return "a number" if isinstance(path[-1], int) else "a text"


def _word(word: Any) -> Any:
    """A word of pydantic's for the report: choices as ``a, b, c``, whole bounds without ``.0``."""
    if isinstance(word, str):
        return word.replace(" or ", ", ").replace("'", "") if word.startswith("'") else word
    return int(word) if isinstance(word, float) and word.is_integer() else word
