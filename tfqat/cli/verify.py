"""`tfqat verify`: opens each exported file with the runtime that reads it and compares it with the trained model."""

from __future__ import annotations

from tfqat.cli.options import Debug, Overrides, SpecFile

EXAMPLE = "tfqat verify --spec specs/digits.yaml"


def verify(spec: SpecFile, overrides: Overrides = None, debug: Debug = False) -> None:
    """Compare each exported file with the trained model; exit 1 where a stage is out of tolerance."""
    from tfqat.cli.run import run_job

    run_job("verify", "verify_spec", spec, overrides)
