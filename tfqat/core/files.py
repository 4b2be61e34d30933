"""Whole files: each file, or set of files, appears complete under its name or not at all.

Everything is first written beside its final place (same file system) under a hidden temporary name and then moved
with ``os.replace``, which is atomic; a process killed in between leaves the old file as it was.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` (same suffix); it becomes ``path`` if the block ends without an error.

    Missing parent folders are made. The temporary file is removed where the block raises.

    Raises:
        FileNotFoundError: the block ended without writing the temporary path.
        OSError: the folder cannot be written (the error names the path).
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{uuid.uuid4().hex[:12]}.tmp{final.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_on_success(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty temporary folder; if the block ends without an error, each file in it moves into ``folder``,
    those in folders of it into the like folders.

    A file of the same name is replaced, others stay. Nothing is moved before all has been written, so that a block
    that fails leaves ``folder`` as it was, or makes none.
    """
    final = Path(folder)
    made = not final.exists()
    final.mkdir(parents=True, exist_ok=True)
    temporary = final / f".{uuid.uuid4().hex[:12]}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        for file in files:
            _flush(file)
        for file in files:
            place = final / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if made and not any(final.iterdir()):
            final.rmdir()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Writes ``data`` to ``path``, whole or not at all; returns the path."""
    with replace_on_success(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes ``text`` to ``path`` as UTF-8 with LF line ends, whole or not at all; returns the path."""
    return write_bytes(path, text.encode("utf-8"))


def _flush(path: Path) -> None:
    """Forces the file's bytes to the disk, so that a power cut after the move cannot leave an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
