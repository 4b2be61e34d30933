"""`tfqat analyze`: what quantization costs, block by block, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqat.cli.options import CommandError, Debug, Overrides, SpecFile, Trust

MAX_DROP = 0.5  # points
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
    recommend: Annotated[
        bool,
        typer.Option(
            "--recommend", metavar="", help="Search mixed precision, and write the rules found into a new spec."
        ),
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop", metavar="POINTS", help="With --recommend: accuracy to lose against float; else 0.5."
        ),
    ] = None,
    low_bits: Annotated[
        int | None,
        typer.Option("--low-bits", metavar="BITS", help="With --recommend: bits (2 to 7) that kernels may go down to."),
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
    wish = _wish(recommend, max_drop, low_bits)
    run_job("analyze", "analyze_spec", spec, overrides, images, budget, output, trust, wish, spec)


def _wish(recommend: bool, max_drop: float | None, low_bits: int | None) -> tuple[float, int | None] | None:
    if not recommend:
        for name, value in (("--max-drop", max_drop), ("--low-bits", low_bits)):
            if value is not None:
                raise CommandError(f"{name} {value:g}: only --recommend searches mixed precision; give it, too")
        return None
    if max_drop is not None and not 0 <= max_drop < float("inf"):
        raise CommandError(f"--max-drop: expected points of accuracy from 0, received {max_drop:g}")
    if low_bits is not None and low_bits not in range(2, 8):
        raise CommandError(f"--low-bits: expected 2 to 7, received {low_bits}")
    return MAX_DROP if max_drop is None else max_drop, low_bits
