"""ImportReport: what became of the ranges that TFMOT learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Tensors made symmetric that the short form names.
_SHOWN = 8


@dataclass(frozen=True)
class TakenRange:
    """One quantized tensor: its range before (in TFMOT) and after, and how much wider its steps have become.

    ``wider`` is the new step divided by the old one; ``origin`` says where the range comes from.
    """

    tensor: str
    low: float
    high: float
    new_low: float
    new_high: float
    wider: float
    symmetric: bool
    origin: str


@dataclass(frozen=True)
class ImportReport:
    """What became of a TFMOT model's ranges.

    Attributes:
        source: the file, or the live model.
        target: name of the target; "" where TFMOT's own placement is kept.
        taken: tensors whose range comes from TFMOT.
        dropped: (tensor, why) of ranges that nothing in the target's plan takes.
        calibrated: tensors without a range in TFMOT, set from the dataset.
        held: ops whose kernel keeps TFMOT's scale.
        requantized: (op, why) of quantized kernels whose scale is computed anew.
        zeros: tensors that are rounded to zero, as TFMOT's range of them is from 0 to 0.
        untrained: tensors and ops whose range is still the one that TFMOT starts with.
        accuracy_before, accuracy_after: top-1 on the labelled dataset, of the model as TFMOT has it and of this one;
            None where there is no such dataset.
    """

    source: str
    target: str
    taken: tuple[TakenRange, ...]
    dropped: tuple[tuple[str, str], ...] = ()
    calibrated: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    requantized: tuple[tuple[str, str], ...] = ()
    zeros: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    accuracy_before: float | None = None
    accuracy_after: float | None = None

    @property
    def made_symmetric(self) -> tuple[TakenRange, ...]:
        """Tensors with a zero point in TFMOT that the target gives none."""
        return tuple(item for item in self.taken if item.symmetric)

    def __str__(self) -> str:
        """The report in short: of many tensors made symmetric, those that lose most; ``lines`` has all."""
        worst = sorted(self.made_symmetric, key=lambda item: -item.wider)[:_SHOWN]
        rest = len(self.made_symmetric) - len(worst)
        more = [f"  and {rest} more, steps at most {worst[-1].wider:.2f} times as wide"] if rest else []
        return "\n".join([self._head(), *map(_symmetric_text, worst), *more, *self._others(), *self._accuracy()])

    def lines(self) -> list[str]:
        """The report but for the accuracies, a line a fact."""
        return [self._head(), *map(_symmetric_text, self.made_symmetric), *self._others()]

    def _head(self) -> str:
        whose = f"placed for {self.target}" if self.target else "placed as TFMOT has them"
        held = f"{len(self.taken)} tensor ranges and {len(self.held)} kernel scales taken"
        return f"TFMOT import of {self.source}: {held}, {whose}"

    def _others(self) -> list[str]:
        shared = [f"{item.tensor} ({item.origin})" for item in self.taken if item.origin.startswith("as ")]
        dropped = [f"{tensor} ({why})" for tensor, why in self.dropped]
        anew = [f"{op} ({why})" for op, why in self.requantized]
        return [
            *_listed("range of TFMOT shared by", shared),
            *_listed("range dropped", dropped),
            *_listed("kernel scale computed anew", anew),
            *_listed("calibrated, as TFMOT has no range", self.calibrated),
            *_listed("all zeros, as TFMOT's range is from 0 to 0", self.zeros),
            *_listed("range as TFMOT starts it, never trained", self.untrained),
        ]

    def _accuracy(self) -> list[str]:
        if self.accuracy_before is None or self.accuracy_after is None:
            return []
        points = 100 * (self.accuracy_after - self.accuracy_before)
        after = self.target or "imported"
        return [
            f"  accuracy: TFMOT {self.accuracy_before:.2%}, {after} {self.accuracy_after:.2%} ({points:+.2f} points)"
        ]


def _symmetric_text(item: TakenRange) -> str:
    loss = f"steps {item.wider:.2f} times as wide"
    return (
        f"  {item.tensor}: asymmetric [{item.low:.4g}, {item.high:.4g}] -> symmetric "
        f"[{item.new_low:.4g}, {item.new_high:.4g}], {loss}"
    )


def _listed(text: str, names: Iterable[str]) -> list[str]:
    listed = ", ".join(names)
    return [f"  {text}: {listed}"] if listed else []
