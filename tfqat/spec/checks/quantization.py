"""Quantization: checks of `quantization_config`."""

from __future__ import annotations

from typing import Any

from tfqat.spec.checks.check import (
    QUANT,
    RANGES,
    TARGET,
    on,
    only_for,
)
from tfqat.targets import load_target


def _activation_fits(activation: Any, target: Any) -> str | None:
    offered = load_target(target).activation_choices
    if activation is None or activation in offered:
        return None
    return (
        f"received {activation}, expected null or one that the target {target} offers: {', '.join(offered) or 'none'}"
    )


def _equalize_first(tune: Any) -> str | None:
    if "equalize" not in tune or tune[0] == "equalize":
        return None
    return f"received equalize behind {tune[0]}; expected it first, since it works on the float model"


CHECKS = (
    on(f"{QUANT}.calibration.percentile", only_for(("percentile",), 99.99), f"{QUANT}.calibration.method"),
    on(f"{QUANT}.decay", only_for(("moving_average",), 0.99), RANGES),
    on(f"{QUANT}.observe_fraction", only_for(("moving_average",), 1.0), RANGES),
    on(f"{QUANT}.ranges_rate_multiplier", only_for(("learned",), 1.0), RANGES),
    on(f"{QUANT}.freeze_after", only_for(("moving_average", "learned"), None), RANGES),
    on(f"{QUANT}.activation", _activation_fits, TARGET),
    on(f"{QUANT}.tune", _equalize_first),
)
