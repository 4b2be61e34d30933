"""Rounding: for each weight, up or down, so that a layer's output errs least (AdaRound, arXiv:2004.10568); numpy only.

The kernel of a channel is ``w = s * clip(floor(u) + h(V), qmin, qmax)``, ``u`` being the float weights over s and
``h(V) = clip(1.2 * sigmoid(V) - 0.1, 0, 1)`` (zeta 1.1, gamma -0.1). Adam minimizes
``E(w) / unit + 0.3 * sum(1 - |2 h - 1|^beta)`` over V, beta falling from 20 to 2 after a fifth of the steps, as the
paper has it. What the paper estimates from batches is known exactly here: the mean squared error ``E(w) = mean (x w -
t)^2`` of a linear layer is ``w' G w - 2 w' c + r`` with ``G = mean x'x``, ``c = mean x't`` and ``r = mean t^2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ZETA, GAMMA = 1.1, -0.1
STEPS, WARM_UP, RATE = 1000, 0.2, 0.03
# Of weights from 0.003 to 0.3 the largest came nearest to the best of all roundings (measured, 9 weights, 40 layers).
BETAS, WEIGHT = (20.0, 2.0), 0.3
# Weights this near to the end of the grid (in steps) stay there: of the largest one the scale is made.
END = 1e-3


@dataclass(frozen=True, eq=False)
class Target:
    """What a layer should give: G ``(groups, k, k)``, c ``(groups, k, outputs)`` and r ``(groups, outputs)``."""

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray

    def error(self, kernel: np.ndarray) -> np.ndarray:
        """E of each channel of a kernel ``(groups, k, outputs)``."""
        return np.asarray(((self.gram @ kernel - 2.0 * self.cross) * kernel).sum(axis=1) + self.square)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where weights may lie: scale, shaped to multiply a kernel ``(groups, k, outputs)``, and the integers in use."""

    scale: np.ndarray
    qmin: int
    qmax: int

    def nearest(self, kernel: np.ndarray) -> np.ndarray:
        """The integers of the kernel, rounded half to even."""
        return np.clip(np.rint(kernel / self.scale), self.qmin, self.qmax)


def learn_rounding(kernel: np.ndarray, grid: Grid, target: Target) -> np.ndarray:
    """The integers of the kernel ``(groups, k, outputs)``, up or down; the nearest where that errs less."""
    nearest = grid.nearest(kernel)
    learned = _learn(kernel / grid.scale, grid, target)
    better = target.error(learned * grid.scale) < target.error(nearest * grid.scale)
    return np.where(better[:, None, :], learned, nearest)


def _learn(ratio: np.ndarray, grid: Grid, target: Target) -> np.ndarray:
    low = np.floor(ratio)
    free = (low >= grid.qmin) & (low < grid.qmax) & (np.abs(ratio) < grid.qmax - END)
    fixed = np.clip(np.rint(ratio), grid.qmin, grid.qmax)
    # The mean over weights of what E changes with one step: in units of it, rates and weights suit any layer.
    unit = np.mean(np.square(grid.scale) * np.diagonal(target.gram, axis1=1, axis2=2)[..., None]) + 1e-30
    logits = -np.log((ZETA - GAMMA) / (ratio - low - GAMMA) - 1.0)
    adam = _Adam(logits.shape)
    for step in range(STEPS):
        rise, slope = _rectified_sigmoid(logits)
        kernel = np.where(free, low + rise, fixed) * grid.scale
        gradient = 2.0 * (target.gram @ kernel - target.cross) * grid.scale / unit
        gradient = gradient + WEIGHT * _pull(rise, step / STEPS)
        logits = logits - adam.step(np.where(free, gradient * slope, 0.0))
    return np.where(free, low + (_rectified_sigmoid(logits)[0] >= 0.5), fixed)


def _rectified_sigmoid(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h and its derivative."""
    sigmoid = 1.0 / (1.0 + np.exp(-logits))
    stretched = sigmoid * (ZETA - GAMMA) + GAMMA
    inside = (stretched > 0.0) & (stretched < 1.0)
    return np.clip(stretched, 0.0, 1.0), inside * (ZETA - GAMMA) * sigmoid * (1.0 - sigmoid)


def _pull(rise: np.ndarray, progress: float) -> np.ndarray:
    """The derivative of ``1 - |2 h - 1|^beta``: away from one half, by and by; nothing while warming up."""
    if progress < WARM_UP:
        return np.zeros_like(rise)
    first, last = BETAS
    left = 1.0 - (progress - WARM_UP) / (1.0 - WARM_UP)
    beta = last + (first - last) * left
    side = 2.0 * rise - 1.0
    return np.asarray(-2.0 * beta * np.abs(side) ** (beta - 1.0) * np.sign(side))


class _Adam:
    """Adam's steps (arXiv:1412.6980)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean, self.square, self.count = np.zeros(shape), np.zeros(shape), 0

    def step(self, gradient: np.ndarray) -> np.ndarray:
        """What is to be taken off."""
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * np.square(gradient)
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return np.asarray(RATE * mean / (np.sqrt(square) + 1e-8))
