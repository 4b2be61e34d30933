"""`tfqat export`: writes the files that the accelerator's tools read."""

from __future__ import annotations

from typing import Annotated

import typer

from tfqat.cli.cache_option import DEFAULT, cache_path
from tfqat.cli.options import Debug, Overrides, SpecFile, Trust

EXAMPLE = "tfqat export --spec specs/digits.yaml --cache"


def export(
    spec: SpecFile,
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="[PATH]", help=f"Write the TensorRT cache; without PATH to {DEFAULT}."),
    ] = None,
    c_array: Annotated[
        bool, typer.Option("--c-array", metavar="", help="Write the TFLite model as C source and header, too.")
    ] = False,
    trust: Trust = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Export the trained model as the files that its target's tools read (`tfqat targets`)."""
    from tfqat.cli.run import run_job

    run_job("export", "export_spec", spec, overrides, cache_path(cache), cache is not None, c_array, trust)
