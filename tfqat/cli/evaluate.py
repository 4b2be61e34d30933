"""`tfqat evaluate`: measures the trained model on the validation data."""

from __future__ import annotations

from tfqat.cli.options import Debug, Overrides, SpecFile

EXAMPLE = "tfqat evaluate --spec specs/digits.yaml"


def evaluate(spec: SpecFile, overrides: Overrides = None, debug: Debug = False) -> None:
    """Measure the accuracy of the trained model on the validation data."""
    from tfqat.cli.run import run_job

    run_job("evaluate", "evaluate", spec, overrides)
