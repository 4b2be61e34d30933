"""`tfqat analyze`: what quantization costs, block by block, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqat.cli.options import CommandError, Debug, Overrides, SpecFile, Trust

EXAMPLE = "tfqat analyze --spec specs/digits.yaml --images 400 --budget 60"


def analyze(
    spec: SpecFile,
    images: Annotated[int, typer.Option("--images", metavar="N", help="Validation images to look at, at most.")] = 800,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", metavar="SECONDS", help="Begin no other block after this time; else all are measured."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Folder of the report; else <results_dir>/analysis."),
    ] = None,
    trust: Trust = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Measure each block alone quantized and alone float, and each tensor's rounding; write a report."""
    from tfqat.cli.run import run_job

    if images < 1:
        raise CommandError(f"--images: expected a number of at least 1, received {images}")
    if budget is not None and not 0 < budget < float("inf"):
        raise CommandError(f"--budget: expected seconds above 0, received {budget:g}")
    if output is not None and output.exists() and not output.is_dir():
        raise CommandError(f"--output: expected a folder, received the file {str(output)!r}")
    run_job("analyze", "analyze_spec", spec, overrides, images, budget, output, trust)
