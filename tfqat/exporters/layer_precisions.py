"""Layer precisions: the nodes that must stay float beside a cache, as text for trtexec.

TensorRT's implicit mode picks each layer's precision by speed, so it may run in INT8 a layer that was trained in float.
``trtexec --precisionConstraints=obey --layerPrecisions=$(cat layer_precisions.txt)`` forbids it. The text is one line
of ``node:fp32`` separated by commas (trtexec's ``--help``), ``node:fp16`` on a DLA; empty where nothing is float.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tfqat.core.files import write_text
from tfqat.errors import TfqatError

FLOAT = "fp32"


class LayerPrecisionsError(TfqatError):
    """A layer precisions file that cannot be written or read."""


def render(nodes: Iterable[str], precision: str = FLOAT) -> str:
    """The text that gives ``nodes`` the precision.

    Raises:
        LayerPrecisionsError: a name that trtexec would split or take for a pattern.
    """
    names = list(nodes)
    for name in names:
        if any(sign in name for sign in ":,*\n") or not name:
            raise LayerPrecisionsError(f"Node {name!r}: trtexec splits at ':' and ',' and reads '*' as a pattern.")
    return ",".join(f"{name}:{precision}" for name in names) + ("\n" if names else "")


def write(path: str | os.PathLike[str], nodes: Iterable[str], precision: str = FLOAT) -> Path:
    """Writes the file that gives ``nodes`` the precision, whole or not at all; returns the path."""
    return write_text(path, render(nodes, precision))


def read(path: str | os.PathLike[str]) -> dict[str, str]:
    """Node -> precision.

    Raises:
        LayerPrecisionsError: an entry that is not ``node:precision``.
        OSError: the file cannot be opened.
    """
    entries = [entry for entry in Path(path).read_text(encoding="utf-8").strip().split(",") if entry]
    found = {}
    for entry in entries:
        name, colon, precision = entry.rpartition(":")
        if not name or not colon or precision not in ("fp32", "fp16", "int8", "int32"):
            raise LayerPrecisionsError(f"{path}: expected 'node:fp32', received {entry[:100]!r}.")
        found[name] = precision
    return found
