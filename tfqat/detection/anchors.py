"""Anchors: the boxes that a detector's numbers are relative to, at each place of each level (arXiv 1911.09070)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class Anchors:
    """How anchors are laid out.

    Attributes:
        levels: those of the feature maps; level n has stride ``2 ** n``.
        octaves: scales of a place: ``2 ** (k / octaves)`` for k from 0.
        ratios: width to height; the area is that of the square.
        scale: side of the smallest square, in strides.
    """

    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    octaves: int = 3
    ratios: tuple[float, ...] = (1.0, 2.0, 0.5)
    scale: float = 4.0

    @property
    def per_place(self) -> int:
        """How many stand at each place."""
        return self.octaves * len(self.ratios)


def anchor_boxes(image_size: Sequence[int], layout: Anchors = Anchors()) -> np.ndarray:
    """All anchors of an image, ``(anchors, 4)`` float32: ``ymin, xmin, ymax, xmax`` in pixels.

    In the order of a detector's outputs: levels, rows, columns, then scales and ratios of the place, whose middle is
    that of its stride x stride pixels. They may reach beyond the image.

    Args:
        image_size: height and width.
        layout: of the anchors.
    """
    return np.concatenate([_level(image_size, level, layout) for level in layout.levels]).astype(np.float32)


def _level(image_size: Sequence[int], level: int, layout: Anchors) -> np.ndarray:
    stride = 2**level
    rows, columns = ((np.arange(-(-size // stride)) + 0.5) * stride for size in image_size)
    middles = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[:, :, None]
    halves = np.asarray(_sizes(layout)) * stride / 2
    return np.concatenate([middles - halves, middles + halves], axis=-1).reshape(-1, 4)


def _sizes(layout: Anchors) -> list[tuple[float, float]]:
    """Height and width of each anchor of a place, in strides."""
    sides = [layout.scale * 2 ** (octave / layout.octaves) for octave in range(layout.octaves)]
    return [(side / ratio**0.5, side * ratio**0.5) for side, ratio in product(sides, layout.ratios)]
