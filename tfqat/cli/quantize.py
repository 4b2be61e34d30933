"""`tfqat quantize`: calibrates and tunes the float model; nothing is trained quantized."""

from __future__ import annotations

from tfqat.cli.options import Debug, Overrides, Restart, SpecFile, Trust

EXAMPLE = "tfqat quantize --spec specs/digits.yaml quantization_config.tune=[bias_correction]"


def quantize(
    spec: SpecFile, overrides: Overrides = None, restart: Restart = False, trust: Trust = False, debug: Debug = False
) -> None:
    """Quantize the spec's model without training: calibrate, repair (quantization_config.tune), print the table."""
    from tfqat.cli.run import run_job

    run_job("quantize", "quantize", spec, overrides, restart, trust)
