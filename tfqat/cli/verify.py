"""`tfqat verify`: opens each exported file with the runtime that reads it and compares it with the trained model."""

from __future__ import annotations

from typing import Annotated

import typer

from tfqat.cli.cache_option import DEFAULT, cache_path
from tfqat.cli.options import Debug, Overrides, SpecFile, Trust

EXAMPLE = "tfqat verify --spec specs/digits.yaml"


def verify(
    spec: SpecFile,
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="[PATH]", help=f"The cache that export wrote; without PATH {DEFAULT}."),
    ] = None,
    trust: Trust = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Compare each exported file with the trained model; exit 1 where a stage is out of tolerance."""
    from tfqat.cli.run import run_job

    run_job("verify", "verify_spec", spec, overrides, cache_path(cache), trust)
