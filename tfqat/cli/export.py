"""`tfqat export`: writes the files that the accelerator's tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tfqat.cli.options import Debug, Overrides, SpecFile

EXAMPLE = "tfqat export --spec specs/digits.yaml --cache"
DEFAULT = "<results_dir>/export/model.cache"


class ExportCommand(TyperCommand):
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


def export(
    spec: SpecFile,
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="[PATH]", help=f"Write the TensorRT cache; without PATH to {DEFAULT}."),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Export the trained model: TensorRT cache, float and Q/DQ ONNX, encodings, manifest."""
    from tfqat.cli.run import run_job

    run_job("export", "export_spec", spec, overrides, None if cache in (None, DEFAULT) else Path(cache))
