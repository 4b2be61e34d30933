"""Histogram: how the values of one tensor are spread, gathered batch by batch; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 4096
SMALLEST = float(np.finfo(np.float32).tiny)


class NotFinite(ValueError):
    """A value that is NaN or infinite."""


@dataclass
class Histogram:
    """Counts of values in equal bins over ``[low, high]``, which grows with the data; exact bounds kept apart.

    A value beyond the bins doubles their width (neighbours merge), so no second pass over the data is needed.
    """

    low: float = np.inf
    high: float = -np.inf
    start: float = 0.0
    width: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.float64))

    @property
    def empty(self) -> bool:
        """Whether no value has been added."""
        return self.low > self.high

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin."""
        return self.start + (np.arange(BINS) + 0.5) * self.width

    def add(self, values: np.ndarray) -> None:
        """Adds the values.

        Raises:
            NotFinite: one is NaN or infinite.
        """
        flat = np.asarray(values, np.float32).ravel()
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise NotFinite("not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.width == 0.0 and self.high > self.low:
            earlier = self.counts.sum()  # all of them the same value
            self._open(low if earlier == 0 else self.low, self.high)
        if self.width == 0.0:
            self.counts[0] += flat.size
            self.start = low
            return
        self._grow()
        # In double precision: float32 has no BINS numbers between values that are close to each other.
        span = (self.start, self.start + BINS * self.width)
        self.counts += np.histogram(flat.astype(np.float64), bins=BINS, range=span)[0]

    def _open(self, low: float, high: float) -> None:
        earlier, value = float(self.counts[0]), self.start
        self.start, self.width = low, max((high - low) / BINS, SMALLEST)
        self.counts = np.zeros(BINS, np.float64)
        if earlier:
            self.counts[min(BINS - 1, max(0, int((value - self.start) / self.width)))] = earlier

    def _grow(self) -> None:
        while self.high > self.start + BINS * self.width:
            self.counts = self._merged(first=0)
            self.width *= 2
        while self.low < self.start:
            self.start -= BINS * self.width
            self.counts = self._merged(first=BINS // 2)
            self.width *= 2

    def _merged(self, first: int) -> np.ndarray:
        counts = np.zeros(BINS, np.float64)
        counts[first : first + BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
        return counts
