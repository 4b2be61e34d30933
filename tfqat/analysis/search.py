"""Search: the front of mixed precision, point by measured point, within a time budget.

Blocks go to float in the order of what they gain for what they cost, as many as the bound asks for, found by doubling
and halving; then each is tried on integers again, the costliest first. Where fewer bits are asked for, kernels go there
in the order of what that costs, as many as the bound allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from tfqat.analysis.candidates import Candidate
from tfqat.analysis.front import Point
from tfqat.analysis.int8_blocks import Int8Block
from tfqat.errors import TfqatError

Floats = frozenset[Int8Block]
# What is measured: the blocks in float, and the kernels with fewer bits.
Measure = Callable[[Floats, tuple[str, ...]], Point]


class OutOfTime(Exception):
    """No other model may be begun."""


class Search:
    """The points so far, and those who keep the bound."""

    def __init__(self, measure: Measure, max_drop: float, deadline: float | None, kernels: Iterable[str]) -> None:
        self._measure, self._max_drop, self._deadline = measure, max_drop, deadline
        self._kernels = frozenset(kernels)
        self.known: dict[tuple[Floats, frozenset[str]], Point] = {}
        self._refused: set[tuple[Floats, frozenset[str]]] = set()
        self.out_of_time = False

    @property
    def points(self) -> tuple[Point, ...]:
        """In the order of their measurement."""
        return tuple(self.known.values())

    @property
    def chosen(self) -> int | None:
        """Number of the best point that keeps the bound."""
        within = [number for number, point in enumerate(self.points) if self._keeps(point)]
        return max(within, key=lambda number: self.points[number].rank, default=None)

    @property
    def floats(self) -> Floats:
        """The blocks in float of the chosen point."""
        return frozenset() if self.chosen is None else list(self.known)[self.chosen][0]

    def all_on_integers(self) -> bool:
        """Measures that; whether it keeps the bound."""
        return self._within(frozenset())

    def to_float(self, candidates: Sequence[Candidate]) -> None:
        """Measures as many candidates in float as the bound asks for."""
        try:
            self._to_float(self._growing(candidates))
        except OutOfTime:
            self.out_of_time = True

    def to_low(self, order: Sequence[str]) -> None:
        """Measures the chosen point with as many kernels of ``order`` in fewer bits as the bound allows."""
        floats = self.floats
        gone = {name for block in floats for name in block.kernels}
        left = [name for name in order if name not in gone]
        try:
            self._halve(0, len(left) + 1, lambda count: not self._within(floats, tuple(left[:count])), first=len(left))
        except OutOfTime:
            self.out_of_time = True

    def _growing(self, candidates: Sequence[Candidate]) -> list[Floats]:
        """None in float, then one candidate more each; those that would leave no kernel on integers are passed over."""
        sets: list[Floats] = [frozenset()]
        for candidate in candidates:
            more = sets[-1] | set(candidate.blocks)
            if more != sets[-1] and self._leaves_kernels(more):
                sets.append(more)
        return sets

    def _to_float(self, sets: list[Floats]) -> None:
        most, reach = len(sets) - 1, 1
        while reach < most and not self._within(sets[reach]):
            reach *= 2
        reach = min(reach, most)
        if reach == 0 or not self._within(sets[reach]):
            return
        least = self._halve(reach // 2, reach, lambda count: self._within(sets[count]))
        self._thin(sets[least])

    def _thin(self, floats: Floats) -> None:
        """Tries each block on integers again."""
        for block in sorted(floats, key=lambda block: (-block.macs, block.name)):
            fewer = floats - {block}
            if fewer and self._within(fewer):
                floats = fewer

    def _halve(self, low: int, high: int, holds: Callable[[int], bool], first: int | None = None) -> int:
        """The least number above ``low`` for which ``holds``, where ``high`` is known, or taken, to be one."""
        middle = first
        while high - low > 1:
            middle = (low + high) // 2 if middle is None else middle
            low, high = (low, middle) if holds(middle) else (middle, high)
            middle = None
        return high

    def _leaves_kernels(self, floats: Floats) -> bool:
        """Whether a kernel stays on integers: a model without any is no quantized one."""
        return not self._kernels <= {name for block in floats for name in block.kernels}

    def _within(self, floats: Floats, low: tuple[str, ...] = ()) -> bool:
        key = floats, frozenset(low)
        if key in self._refused:
            return False
        if key not in self.known:
            if self.known and self._deadline is not None and time.monotonic() > self._deadline:
                raise OutOfTime
            try:
                self.known[key] = self._measure(floats, low)
            except TfqatError:  # a rule of the user's is left without a kernel that it speaks of
                if not self.known:
                    raise
                self._refused.add(key)
                return False
        return self._keeps(self.known[key])

    def _keeps(self, point: Point) -> bool:
        return point.drop <= self._max_drop + 1e-9
