"""Manifest: what an export wrote, with what, for whom; the sha256 of each file shows later whether it is still that."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfqat.core.encoding import Encodings
from tfqat.core.files import write_text
from tfqat.errors import TfqatError

FORMAT, VERSION = "tfqat manifest", 1
PACKAGES = ("tfqat", "keras", "tensorflow", "tf2onnx", "onnx", "numpy")


class ManifestError(TfqatError):
    """A manifest that cannot be read, or files that are not those it was written for."""


@dataclass(frozen=True)
class Manifest:
    """What is known about one set of exported files.

    Attributes:
        target: name of the target.
        files: role -> name, sha256, bytes, and who reads it.
        options: how it was exported.
        report: coverage, float layers, dead tensors, origins and whatever else was found.
        packages: package -> version.
    """

    target: str
    files: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    report: Mapping[str, Any]
    packages: Mapping[str, str] = field(default_factory=lambda: package_versions())


def entry(path: Path, read_by: str) -> dict[str, Any]:
    """The manifest's row of one file."""
    return {"name": path.name, "sha256": sha256(path), "bytes": path.stat().st_size, "read_by": read_by}


def write(path: str | os.PathLike[str], manifest: Manifest) -> Path:
    """Writes the manifest as JSON, whole or not at all; the same export gives the same bytes."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "target": manifest.target,
        "files": manifest.files,
        "options": manifest.options,
        "report": manifest.report,
        "packages": manifest.packages,
    }
    return write_text(path, json.dumps(document, indent=2) + "\n")


def read(path: str | os.PathLike[str]) -> Manifest:
    """Reads a manifest.

    Raises:
        ManifestError: it is cut off, or is something else.
        OSError: it cannot be opened.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not whole JSON ({error}); export again.") from error
    keys = ("target", "files", "options", "report", "packages")
    known = isinstance(document, dict) and document.get("format") == FORMAT and document.get("version") == VERSION
    if not known or not all(key in document for key in keys):
        raise ManifestError(f"{path} is no manifest of tfqat (version {VERSION}); export again.")
    return Manifest(*(document[key] for key in keys))


def check_files(path: str | os.PathLike[str]) -> dict[str, Path]:
    """Role -> path of each file of the manifest at ``path``, after comparing sizes and hashes.

    Raises:
        ManifestError: a file is missing, cut off or changed; names all of them.
        OSError: one cannot be opened.
    """
    manifest, folder = read(path), Path(path).parent
    found, wrong = {}, []
    for role, row in manifest.files.items():
        file = folder / row["name"]
        found[role] = file
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file.stat().st_size != row["bytes"]:
            wrong.append(f"{file} has {file.stat().st_size} bytes, not {row['bytes']}")
        elif sha256(file) != row["sha256"]:
            wrong.append(f"{file} was changed after the export (its sha256 is another)")
    if wrong:
        raise ManifestError(f"The files are not those that were exported: {'; '.join(wrong)}. Export again.")
    return found


def origins(encodings: Encodings) -> dict[str, list[str]]:
    """Origin -> the tensors whose ranges have it; ``learned``, the rule, is left out."""
    found: dict[str, list[str]] = {}
    for name, encoding in encodings.activations.items():
        if encoding.origin != "learned":
            found.setdefault(encoding.origin, []).append(name)
    return found


def dead(encodings: Encodings) -> list[str]:
    """The tensors and kernels that were zero wherever they were looked at."""
    rows = [*encodings.activations.items(), *((f"{op}/kernel", e) for op, e in encodings.weights.items())]
    return [name for name, encoding in rows if encoding.dead]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape the files, those that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
