"""`tfqat train`: trains in float, calibrates and trains quantization-aware; a broken run continues."""

from __future__ import annotations

from tfqat.cli.options import Debug, Overrides, Restart, SpecFile, Trust

EXAMPLE = "tfqat train --spec specs/digits.yaml training_config.num_epochs=1"


def train(
    spec: SpecFile, overrides: Overrides = None, restart: Restart = False, trust: Trust = False, debug: Debug = False
) -> None:
    """Train the spec's model; run again, it continues where a broken run stopped."""
    from tfqat.cli.run import run_job

    run_job("train", "train", spec, overrides, restart, trust)
