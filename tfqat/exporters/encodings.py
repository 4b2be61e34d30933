"""Encodings file: all that was learnt for one exported model as JSON, from which every other file can be written again.

Scales are JSON numbers with as many digits as a double needs, so that each comes back as the same float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.files import write_text
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters.json_text import JsonTextError, document_of

FORMAT, VERSION = "tfqat encodings", 1
_ROUNDING = 1e-6  # of float32, relative


class EncodingsError(TfqatError):
    """An encodings file that cannot be read."""


def write(path: str | os.PathLike[str], encodings: Encodings) -> Path:
    """Writes ``encodings``, whole or not at all; returns the path."""
    return write_text(path, render(encodings))


def render(encodings: Encodings) -> str:
    """The text of the file: one line a tensor."""
    head = {"format": FORMAT, "version": VERSION, "target": encodings.target}
    parts = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for section in ("activations", "weights"):
        rows = {name: _to_dict(encoding) for name, encoding in getattr(encodings, section).items()}
        parts.append(_section(section, rows))
    parts.append(_section("float_ops", encodings.float_ops))
    if encodings.metadata:
        parts.append(_section("metadata", encodings.metadata))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read(path: str | os.PathLike[str]) -> Encodings:
    """Reads what :func:`write` wrote; equal to it bit for bit.

    Raises:
        EncodingsError: the file is cut off, or is something else; names the entry.
        OSError: the file cannot be opened.
    """
    try:
        return parse(Path(path).read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise EncodingsError(f"{path}: not text, so not an encodings file.") from error
    except EncodingsError as error:
        raise EncodingsError(f"{path}: {error}") from error


def parse(text: str) -> Encodings:
    """Reads the text of an encodings file; see :func:`read`.

    Raises:
        EncodingsError: names the entry.
    """
    try:
        document = document_of(text)
    except JsonTextError as error:
        raise EncodingsError(str(error)) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise EncodingsError(f"expected an object with format {FORMAT!r} and version {VERSION}; is this another file?")
    sections = {key: _mapping(document, key) for key in ("activations", "weights", "float_ops")}
    if not isinstance(document.get("target"), str):
        raise EncodingsError(f"target must be a text, received {document.get('target')!r}.")
    return Encodings(
        document["target"],
        {name: _from_dict(f"activations.{name}", row) for name, row in sections["activations"].items()},
        {name: _from_dict(f"weights.{name}", row) for name, row in sections["weights"].items()},
        {name: str(reason) for name, reason in sections["float_ops"].items()},
        _mapping(document, "metadata") if "metadata" in document else {},
    )


def _section(key: str, rows: Mapping[str, Any]) -> str:
    lines = [f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    return f"  {json.dumps(key)}: {{" + ("\n" + ",\n".join(lines) + "\n  }" if lines else "}")


def _to_dict(encoding: Encoding) -> dict[str, Any]:
    numbers = {key: getattr(encoding, key).tolist() for key in ("scale", "zero_point", "min", "max")}
    return {**numbers, **asdict(encoding.scheme), "origin": encoding.origin}


def _from_dict(where: str, row: Any) -> Encoding:
    try:
        scheme = Scheme(**{key: row[key] for key in ("bits", "signed", "symmetric", "narrow")}, axis=tuple(row["axis"]))
        scale, zero_point = np.asarray(row["scale"], np.float32), np.asarray(row["zero_point"], np.int32)
        encoding = Encoding(scheme, scale, zero_point, row["origin"])
    except KeyError as error:
        raise EncodingsError(f"{where}: the key {error} is missing.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodingsError(f"{where}: {error}") from error
    _check_range(where, row, encoding)
    return encoding


def _check_range(where: str, row: Mapping[str, Any], encoding: Encoding) -> None:
    """Refuses a range that is not the one of scale and zero point, as an edit of one of them leaves it."""
    for key in ("min", "max"):
        computed = getattr(encoding, key)
        try:
            said = np.asarray(row.get(key, computed), np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise EncodingsError(f"{where}: {key} must be numbers, received {str(row[key])[:80]}.") from error
        if said.shape != computed.shape or not np.isclose(said, computed, rtol=_ROUNDING, atol=0).all():
            raise EncodingsError(
                f"{where}: {key} is {str(row[key])[:80]}, but its scale and zero point give "
                f"{str(computed.tolist())[:80]}; change all of them, or export it again."
            )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise EncodingsError(f"{key} must be an object, received {type(value).__name__}.")
    return value
