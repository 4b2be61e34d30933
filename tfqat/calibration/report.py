"""CalibrationReport: what calibration found for each tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CalibratedRange:
    """One tensor: the range of its values, and the one chosen for it."""

    tensor: str
    seen_min: float
    seen_max: float
    chosen_min: float
    chosen_max: float
    dead: bool


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration found.

    Attributes:
        method: minmax, percentile, mse or entropy.
        batches: how many were seen.
        ranges: one a tensor, in order.
        no_data: tensors whose Quantizer saw no data, and so has no range yet.
    """

    method: str
    batches: int
    ranges: tuple[CalibratedRange, ...]
    no_data: tuple[str, ...]

    @property
    def dead(self) -> tuple[str, ...]:
        """Tensors that were zero everywhere."""
        return tuple(item.tensor for item in self.ranges if item.dead)

    def __str__(self) -> str:
        lines = [f"calibration: {self.method} over {self.batches} batches, {len(self.ranges)} ranges set"]
        if self.no_data:
            lines.append(f"saw no data ({len(self.no_data)}): {_listed(self.no_data)}")
        if self.dead:
            lines.append(f"zero everywhere ({len(self.dead)}): {_listed(self.dead)}")
        return "\n".join(lines)


def _listed(names: tuple[str, ...], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
