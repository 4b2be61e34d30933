"""CacheOption: `--cache [PATH]`, where the TensorRT cache of an export is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from tfqat.cli.options import CommandError

FILE = "model.cache"
DEFAULT = f"<results_dir>/export/{FILE}"


class CacheCommand(TyperCommand):
    """The command whose option `--cache` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fills in the missing value first: typer has no such options."""
        return super().parse_args(ctx, with_cache_path(args))


def with_cache_path(args: list[str]) -> list[str]:
    """``args`` with the default after a `--cache` that is followed by an option, by an override or by nothing."""
    filled: list[str] = []
    for position, word in enumerate(args):
        filled.append(word)
        following = args[position + 1 : position + 2]
        if word == "--cache" and (not following or following[0].startswith("-") or "=" in following[0]):
            filled.append(DEFAULT)
    return filled


def cache_path(given: str | None) -> Path | None:
    """The file that the option names, in a folder that it names model.cache; None for the default.

    Raises:
        CommandError: the option has an empty value.
    """
    if given in (None, DEFAULT):
        return None
    if not given.strip():
        raise CommandError(f"--cache: received an empty path; name a file, or leave it out for {DEFAULT}")
    return Path(given, FILE) if given.endswith(("/", os.sep)) or Path(given).is_dir() else Path(given)
