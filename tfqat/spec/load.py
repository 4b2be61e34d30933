"""Loading: a YAML file and dotted overrides become a Spec, or one SpecError that names every mistake.

A spec means the same wherever it is read, so OmegaConf's references and resolvers (``${oc.env:HOME}``) are refused.
Paths in a spec are relative to the current working directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from tfqat.spec import checks, names
from tfqat.spec.document import Document, DocumentError, Path, parse, parse_value, text_of
from tfqat.spec.report import Problem, SpecError, problems_of
from tfqat.spec.schema import Spec

_KEY = re.compile(r"[^\W\d][\w-]*(?:\.[\w-]+|\[\d+\])*")


def load_spec(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Spec:
    """The Spec in a YAML file.

    Args:
        path: the file, UTF-8.
        overrides: each ``dotted.key=value``; the value is YAML and takes the place of what the file says there.

    Raises:
        SpecError: the file cannot be read or the spec is not valid; names every mistake at once.
    """
    source = os.fspath(path)
    try:
        document = parse(_text(FilePath(path)))
    except DocumentError as error:
        raise SpecError(source, [Problem((), str(error), f"line {error.line}" if error.line else "")]) from error
    found = [*_twice(document), *_references(document.values)]
    wanted = [overrides] if isinstance(overrides, str) else overrides
    values, changed, mistakes = _overridden(document.values, wanted)
    found += mistakes
    spec, more = _validated(values, {problem.path for problem in found if problem.path})
    if spec is None or found or more:
        placed = [_placed(problem, document, changed) for problem in (*found, *more)]
        raise SpecError(source, sorted(placed, key=_order))
    return spec


def dump_spec(spec: Spec) -> str:
    """The whole ``spec`` as YAML, defaults included; `load_spec` reads it back to an equal Spec."""
    return text_of(spec.model_dump(by_alias=True, mode="json"))


def _text(path: FilePath) -> str:
    """The text of a file; every reason why there is none becomes a DocumentError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DocumentError(f"there is no such file{_neighbor(path)}") from error
    except IsADirectoryError as error:
        raise DocumentError("this is a folder, expected a YAML file") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        message = f"not UTF-8 text: byte {byte:#04x} at offset {error.start}; save the file as UTF-8"
        raise DocumentError(message, error.object[: error.start].count(b"\n") + 1) from error
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null character in the path
        raise DocumentError(f"this is no path of a file: {error}") from error


def _neighbor(path: FilePath) -> str:
    try:
        files = [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
    except OSError:
        return f", nor a folder {path.parent}"
    nearest = names.near(path.name, files)
    return f"; did you mean {path.parent / nearest}?" if nearest else "; `tfqat init` writes a starter spec"


def _overridden(values: dict[str, Any], overrides: Sequence[str]) -> tuple[Any, set[Path], list[Problem]]:
    """The values after the overrides, the paths that these set, and what is wrong with them."""
    changed: set[Path] = set()
    mistakes: list[Problem] = []
    config = OmegaConf.create(values)
    for override in overrides:
        try:
            key, value = _split(override)
            OmegaConf.update(config, key, value, merge=False)
            changed.add(_path(key))
        except DocumentError as error:
            mistakes.append(Problem((), f"override {_short(override)!r}: {error}"))
        except (OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            mistakes.append(Problem((), f"override {_short(override)!r} finds no place in the spec: {reason}"))
    return OmegaConf.to_container(config), changed, mistakes


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise DocumentError("expected key=value, such as training_config.num_epochs=1")
    value = parse_value(text)
    for problem in _references({key: value}):
        raise DocumentError(problem.message)
    return key, value


def _path(key: str) -> Path:
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", key))


def _twice(document: Document) -> Iterator[Problem]:
    for path, (first, _) in document.twice.items():
        # What lies within a mapping that stands twice does so too.
        if not any(path[:length] in document.twice for length in range(1, len(path))):
            yield Problem(path, f"stands twice, first in line {first}; expected each key once")


def _references(values: Any, path: Path = ()) -> list[Problem]:
    """The texts that OmegaConf would not take for plain values; they are set to None, in place."""
    found = []
    for key, child in list(values.items() if isinstance(values, dict) else enumerate(values)):
        here = (*path, key)
        if isinstance(child, (dict, list)):
            found += _references(child, here)
        elif isinstance(child, str) and ("${" in child or child == "???"):
            values[key] = None
            found.append(
                Problem(here, f"received {child!r}, expected a plain value; references and resolvers are not read")
            )
    return found


def _validated(values: dict[str, Any], faulty: set[Path]) -> tuple[Spec | None, list[Problem]]:
    """The Spec, or everything that is wrong beside the paths in ``faulty``."""
    spec, found = None, []
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        found = [problem for problem in problems_of(error, values) if problem.path not in faulty]
    wrong = faulty | {problem.path for problem in found}
    return spec, [*found, *checks.problems(values, wrong)]


def _placed(problem: Problem, document: Document, changed: set[Path]) -> Problem:
    """``problem`` with the place where its key, or else the section around it, was written."""
    # The longest first. An override that set a whole section has replaced all the lines within it.
    prefixes = [problem.path[:length] for length in range(len(problem.path), 0, -1)]
    if any(path in changed for path in prefixes):
        return replace(problem, place="override")
    for path in prefixes:
        if path in document.lines:
            return replace(problem, place=f"line {document.lines[path]}")
    return problem


def _order(problem: Problem) -> tuple[bool, int]:
    """Overrides first, then the lines of the file."""
    word, _, line = problem.place.partition(" ")
    return (word == "line", int(line or 0))
