"""`tfqat inspect`: prints what would be quantized, and why each other op would not."""

from __future__ import annotations

from tfqat.cli.options import Debug, Overrides, SpecFile, Trust

EXAMPLE = "tfqat inspect --spec specs/digits.yaml"


def inspect(spec: SpecFile, overrides: Overrides = None, trust: Trust = False, debug: Debug = False) -> None:
    """Print the placement table of the spec's model: int8, shared or float, and why."""
    from tfqat.cli.run import run_job

    run_job("inspect", "inspect", spec, overrides, trust)
