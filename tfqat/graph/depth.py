"""Depth: room for Keras' recursion on models of thousands of layers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Keras builds, clones and restores functional graphs recursively, a few frames a layer (measured: at most 5).
FRAMES_A_LAYER = 12
DEEPEST = 20_000


@contextmanager
def room_for(layers: int = DEEPEST) -> Iterator[None]:
    """Raises Python's recursion limit for a model of that many layers, and puts it back."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1000 + FRAMES_A_LAYER * layers))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
