"""Tensor report: what rounding does to the values of one tensor, or one kernel; numpy only.

With ``q(x)`` the value after quantizing and back, over all values looked at:

    MSE   mean((q(x) - x)^2)
    SQNR  10 log10(sum(x^2) / sum((q(x) - x)^2)), in dB; infinite where nothing is lost (None in a report)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from tfqat.calibration.histogram import BINS, Histogram
from tfqat.core.encoding import Encoding
from tfqat.core.scheme import broadcast, to_channels

# Bins that a report shows: what a screen can.
SHOWN = 128


@dataclass(frozen=True)
class Bars:
    """A histogram to look at: ``counts`` in equal bins from ``low`` to ``high``."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TensorReport:
    """One tensor.

    Attributes:
        name: its name; of a kernel that of its op.
        sqnr_db, mse: of its rounding; ``sqnr_db`` None where nothing is lost.
        low, high: the range of its float values.
        clip_low, clip_high: the range that its integers hold; of a kernel with a scale a channel the widest.
        clipped: share of the values beyond it, 0 to 1.
        histogram: of the float values.
    """

    name: str
    sqnr_db: float | None
    mse: float
    low: float
    high: float
    clip_low: float
    clip_high: float
    clipped: float
    histogram: Bars


@dataclass(frozen=True)
class Channels:
    """The float ranges of a kernel's channels.

    Attributes:
        low, high: the least and the greatest weight of each channel.
        ratio: max|w| of the widest channel by that of the narrowest one that is not all zero.
        dead: how many are all zero.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    ratio: float
    dead: int


@dataclass
class Rounding:
    """Gathers, batch by batch, what an Encoding does to the values of a tensor."""

    encoding: Encoding
    histogram: Histogram = field(default_factory=Histogram)
    count: int = 0
    clipped: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Adds the values.

        Raises:
            NotFinite: one is NaN or infinite.
        """
        values = np.asarray(values, np.float32)
        self.histogram.add(values)
        error = self.encoding.fake_quantize(values).astype(np.float64) - values
        self.count += values.size
        self.clipped += int(np.count_nonzero(_beyond(self.encoding, values)))
        self.signal += float(np.square(values.astype(np.float64)).sum())
        self.noise += float(np.square(error).sum())

    def report(self, name: str) -> TensorReport:
        """What was found."""
        known = self.histogram
        sqnr = 10 * np.log10(self.signal / self.noise) if self.noise and self.signal else None
        return TensorReport(
            name=name,
            sqnr_db=None if sqnr is None else float(sqnr),
            mse=self.noise / max(self.count, 1),
            low=known.low,
            high=known.high,
            clip_low=float(self.encoding.min.min()),
            clip_high=float(self.encoding.max.max()),
            clipped=self.clipped / max(self.count, 1),
            histogram=bars_of(known),
        )


def rounding_of(kernel: np.ndarray, encoding: Encoding) -> Rounding:
    """The Rounding of one kernel."""
    found = Rounding(encoding)
    found.add(kernel)
    return found


def channels_of(kernel: np.ndarray, axis: tuple[int, ...]) -> Channels:
    """The ranges of a kernel's channels, which lie on its axes ``axis``, counted from the end."""
    matrix = to_channels(np.asarray(kernel, np.float32), axis)
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    widths = np.maximum(-low, high)
    alive = widths[widths > 0]
    ratio = float(alive.max() / alive.min()) if alive.size else 1.0
    return Channels(tuple(map(float, low)), tuple(map(float, high)), ratio, int(np.count_nonzero(widths == 0)))


def bars_of(histogram: Histogram) -> Bars:
    """The histogram in SHOWN bins over its values' own range."""
    if histogram.width == 0.0:
        return Bars(histogram.low, histogram.high, (int(histogram.counts.sum()),))
    edges = np.linspace(histogram.low, histogram.high, SHOWN + 1)
    # Exact at the ends: the bins of the histogram, which doubles them, may reach far beyond the values.
    total = np.concatenate([[0.0], np.cumsum(histogram.counts)])
    starts = histogram.start + np.arange(BINS + 1) * histogram.width
    counts = np.diff(np.rint(np.interp(edges, starts, total)))
    return Bars(histogram.low, histogram.high, tuple(int(count) for count in counts))


def _beyond(encoding: Encoding, values: np.ndarray) -> np.ndarray:
    """Whether each value rounds to an integer that the scheme has not."""
    shape, axis = values.shape, encoding.scheme.axis
    scale, zero = (broadcast(part, values.ndim, shape, axis) for part in (encoding.scale, encoding.zero_point))
    integers = np.rint(values / scale.astype(np.float32)) + zero
    return (integers < encoding.scheme.qmin) | (integers > encoding.scheme.qmax)


def worst_sqnr(reports: Iterable[TensorReport]) -> float | None:
    """The least SQNR of some tensors; None where none loses anything."""
    return min((report.sqnr_db for report in reports if report.sqnr_db is not None), default=None)
