"""Registry: the formats, by name; a target lists its own, and each is a module with ``check`` and ``write``."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from types import ModuleType

from tfqat.errors import TfqatError

FORMATS = {"tensorrt": "tfqat.exporters.tensorrt"}


def exporter(name: str, allowed: Sequence[str]) -> ModuleType:
    """The module that writes the format ``name``, one of those that the model's target allows.

    Raises:
        TfqatError: there is no such format, or the target does not write it.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(str(name), FORMATS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(f"formats: there is no {name!r}.{hint} Expected some of {sorted(FORMATS)}.")
    if name not in allowed:
        raise TfqatError(f"formats: the model's target writes {sorted(allowed)}, received {name!r}.")
    return importlib.import_module(FORMATS[name])
