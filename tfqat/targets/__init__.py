"""Targets: one file an accelerator, found by its file's name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from tfqat.errors import TfqatError
from tfqat.graph.target import Target


def target_names() -> tuple[str, ...]:
    """The names of all targets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_target(name: str, config: Mapping[str, Any] | None = None) -> Target:
    """The target of that name.

    Raises:
        TfqatError: there is none; lists the valid names.
    """
    if name not in target_names():
        near = get_close_matches(name, target_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(f"Unknown target {name!r}: expected one of {', '.join(target_names())}.{hint}")
    return importlib.import_module(f"{__name__}.{name}").TARGET
