"""Targets: one file an accelerator, found by its file's name; or an AIMET-style config, found by its path."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tfqat.errors import TfqatError
from tfqat.graph.aimet_config import read_target, target_of
from tfqat.graph.target import Target

CONFIG_SUFFIX = ".json"


def target_names() -> tuple[str, ...]:
    """The names of all targets that are files in this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_target(name: str | Path, config: Mapping[str, Any] | None = None) -> Target:
    """The target of that name.

    Args:
        name: a file in this folder, or the path of an AIMET-style config (``*.json``).
        config: the document of such a config, where it is at hand: a prepared model carries it in its Placement, so
            that it does not need the file any more.

    Raises:
        TfqatError: there is none, with the valid names; or the config is not valid.
    """
    if isinstance(name, Path):
        name = str(name)
    if not isinstance(name, str):
        raise TfqatError(f"target: expected a name or the path of an AIMET-style config (*.json), received {name!r}.")
    if config is not None:
        return target_of(config, name)
    if name.endswith(CONFIG_SUFFIX):
        return read_target(Path(name))
    if name not in target_names():
        near = get_close_matches(name, target_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(
            f"Unknown target {name!r}: expected one of {', '.join(target_names())}, or the path of an AIMET-style "
            f"config (*.json).{hint}"
        )
    return importlib.import_module(f"{__name__}.{name}").TARGET


def summary(name: str) -> str:
    """What the target of that name is: the first line of its module's docstring."""
    text = importlib.import_module(f"{__name__}.{name}").__doc__ or name
    return text.strip().splitlines()[0]
