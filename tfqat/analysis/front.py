"""Front: models of mixed precision that were measured, from all integers to most in float, and the one to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One model of mixed precision, quantized without training and measured.

    Attributes:
        floats: names of the blocks that stay in float.
        low: names of the kernels with fewer bits.
        accuracy: 0 to 1.
        drop: points of accuracy that it is below the float model.
        int8_share: of the multiply-accumulates, output layers aside, 0 to 1; kernels of fewer bits count.
        low_share: of those, what kernels with fewer bits compute.
    """

    floats: tuple[str, ...]
    low: tuple[str, ...]
    accuracy: float
    drop: float
    int8_share: float
    low_share: float

    @property
    def rank(self) -> tuple[float, float, int, float]:
        """What is better is greater: more on integers, then more in few bits, fewer blocks in float, the accuracy."""
        return self.int8_share, self.low_share, -len(self.floats), self.accuracy


@dataclass(frozen=True)
class Front:
    """The points, and the rules of the best one that keeps the bound.

    Attributes:
        max_drop: the bound, in points.
        float_accuracy: of the float model, 0 to 1.
        samples: how many images all were measured on.
        low_bits: of kernels with fewer bits; None where that was not asked for.
        points: in the order of their measurement; the first is all on integers.
        chosen: its number among them; None where none keeps the bound.
        rules: what the chosen one needs beside the rules that were there.
        reasons: a sentence for each of the rules.
        notes: what a reader has to know besides.
    """

    max_drop: float
    float_accuracy: float
    samples: int
    low_bits: int | None
    points: tuple[Point, ...]
    chosen: int | None
    rules: tuple[Mapping[str, Any], ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Point:
        """The chosen point, or the most accurate one where none keeps the bound."""
        if self.chosen is not None:
            return self.points[self.chosen]
        return max(self.points, key=lambda point: (point.accuracy, point.rank))

    @property
    def pareto(self) -> tuple[int, ...]:
        """Numbers of the points to which no other is both as accurate and as much on integers, or better."""
        return tuple(
            number for number, point in enumerate(self.points) if not any(_beats(o, point) for o in self.points)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "pareto": self.pareto, "sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """What was found."""
        drop = f"{max(self.best.drop, 0):.2f} points below float"
        if self.chosen is None:
            return (
                f"None of {len(self.points)} models measured stays within {self.max_drop:g} points of float "
                f"({self.float_accuracy:.2%}); the best has {self.best.accuracy:.2%}, {drop}, with "
                f"{self.best.int8_share:.1%} of the multiply-accumulates on integers."
            )
        if not self.rules:
            return f"All on integers is {drop}, within {self.max_drop:g}: no rule is needed."
        return (
            f"{self.best.accuracy:.2%}, {drop} (at most {self.max_drop:g} asked for), with "
            f"{self.best.int8_share:.1%} of the multiply-accumulates on integers{self._low}: "
            f"{len(self.best.floats)} blocks in float."
        )

    @property
    def _low(self) -> str:
        return "" if self.low_bits is None else f", {self.best.low_share:.1%} with kernels of {self.low_bits} bits"


def _beats(one: Point, other: Point) -> bool:
    ours = (one.accuracy, one.int8_share, one.low_share)
    theirs = (other.accuracy, other.int8_share, other.low_share)
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))
