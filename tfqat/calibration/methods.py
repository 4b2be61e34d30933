"""Method: how a range is chosen from a tensor's histogram (minmax, percentile, mse); numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tfqat.calibration.histogram import Histogram
from tfqat.core.scheme import Scheme, dequantize, quantize, scale_and_zero_point

Range = tuple[float, float]
# Shares of the full range that the mse search tries.
SHRINKS = np.concatenate([np.linspace(0.02, 0.2, 19), np.linspace(0.21, 1.0, 80)])


def minmax(histogram: Histogram, scheme: Scheme, percentile: float) -> Range:
    """All values."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, scheme: Scheme, percentile: float) -> Range:
    """All but the outermost values: ``percentile`` % of |x| for a symmetric scheme, of either side else."""
    if histogram.width == 0.0 or percentile >= 100.0:
        return histogram.low, histogram.high
    if scheme.symmetric:
        order = np.argsort(np.abs(histogram.centers))
        inside = _first_reaching(histogram.counts[order], percentile)
        bound = abs(histogram.centers[order][inside]) + histogram.width / 2
        return max(histogram.low, -bound), min(histogram.high, bound)
    high = histogram.centers[_first_reaching(histogram.counts, percentile)] + histogram.width / 2
    low = histogram.centers[-1 - _first_reaching(histogram.counts[::-1], percentile)] - histogram.width / 2
    return max(histogram.low, low), min(histogram.high, high)


def mse(histogram: Histogram, scheme: Scheme, percentile: float) -> Range:
    """The range, a share of the full one, with the least mean squared error of quantized values."""
    if histogram.width == 0.0:
        return histogram.low, histogram.high
    used = histogram.counts > 0
    centers, counts = histogram.centers[used].astype(np.float32), histogram.counts[used]
    candidates = [(histogram.low * shrink, histogram.high * shrink) for shrink in SHRINKS]
    errors = [_error(centers, counts, scheme, *candidate) for candidate in candidates]
    return candidates[int(np.argmin(errors))]


METHODS: Mapping[str, Callable[[Histogram, Scheme, float], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
}


def _first_reaching(counts: np.ndarray, share: float) -> int:
    total = np.cumsum(counts)
    return int(np.searchsorted(total, total[-1] * share / 100.0))


def _error(centers: np.ndarray, counts: np.ndarray, scheme: Scheme, low: float, high: float) -> float:
    scale, zero_point = scale_and_zero_point(scheme, np.float32(low), np.float32(high))
    rounded = dequantize(quantize(centers, scheme, scale, zero_point), scheme, scale, zero_point)
    return float((counts * np.square(rounded.astype(np.float64) - centers)).sum())
