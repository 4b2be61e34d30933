"""Method: how a range is chosen from a tensor's histogram (minmax, percentile, mse, entropy); numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tfqat.calibration.histogram import Histogram
from tfqat.core.scheme import Scheme, dequantize, quantize, scale_and_zero_point

Range = tuple[float, float]
# Bins of the entropy search, and how many it goes at a time.
DIVERGENCE_BINS, STRIDE = 2048, 8
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


def entropy(histogram: Histogram, scheme: Scheme, percentile: float) -> Range:
    """The range that keeps most of what the values tell: the least Kullback-Leibler divergence of the rounded ones.

    As TensorRT's entropy calibrator (Migacz, "8-bit inference with TensorRT", GTC 2017): of |x| in DIVERGENCE_BINS bins
    for a symmetric scheme, of x else; all bounds of |x| are tried.
    """
    if histogram.width == 0.0:
        return histogram.low, histogram.high
    furthest = max(-histogram.low, histogram.high)
    values = np.abs(histogram.centers) if scheme.symmetric else histogram.centers
    ends = (0.0, furthest) if scheme.symmetric else (histogram.low, histogram.high)
    counts, edges = np.histogram(values, DIVERGENCE_BINS, ends, weights=histogram.counts)
    zero = int(np.clip(np.searchsorted(edges, 0.0, "right") - 1, 0, DIVERGENCE_BINS - 1))
    # What a ReLU cuts off is 0 in any range, and so many that the rest would count for nothing.
    counts[zero] = min(counts[zero], counts[zero + 1] if zero + 1 < DIVERGENCE_BINS else counts[zero - 1])
    levels = scheme.qmax + 1 if scheme.symmetric else scheme.qmax - scheme.qmin + 1
    # The last is the whole range, also of grids that the strides do not lead to.
    bins = np.append(np.arange(min(levels, DIVERGENCE_BINS), DIVERGENCE_BINS, STRIDE), DIVERGENCE_BINS)
    shares = bins / DIVERGENCE_BINS
    sides = (np.searchsorted(edges, (-bound, bound)) for bound in shares * furthest)
    divergences = [_divergence(counts, int(first), int(last), levels) for first, last in sides]
    bound = float(shares[int(np.argmin(divergences))] * furthest)
    return max(histogram.low, -bound), min(histogram.high, bound)


METHODS: Mapping[str, Callable[[Histogram, Scheme, float], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def _divergence(counts: np.ndarray, first: int, last: int, levels: int) -> float:
    """Of the values clipped to some bins from what is left of them on ``levels`` integers."""
    inside = counts[first:last]
    if not inside.any():
        return np.inf
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(inside.size) * levels // inside.size
    used = inside > 0
    totals, sizes = np.bincount(level, inside, levels), np.bincount(level, used, levels)
    rounded = np.where(used, totals[level] / np.maximum(sizes[level], 1), 0.0)
    held = clipped > 0
    # A little for bins that only clipping has filled: the divergence would be infinite else.
    kept = np.maximum(rounded[held] / max(rounded.sum(), 1.0), 1e-12)
    share = clipped[held] / clipped.sum()
    return float((share * np.log(share / kept)).sum())


def _first_reaching(counts: np.ndarray, share: float) -> int:
    total = np.cumsum(counts)
    return int(np.searchsorted(total, total[-1] * share / 100.0))


def _error(centers: np.ndarray, counts: np.ndarray, scheme: Scheme, low: float, high: float) -> float:
    scale, zero_point = scale_and_zero_point(scheme, np.float32(low), np.float32(high))
    rounded = dequantize(quantize(centers, scheme, scale, zero_point), scheme, scale, zero_point)
    return float((counts * np.square(rounded.astype(np.float64) - centers)).sum())
