"""Probabilities: of scores that may be some already, or logits."""

from __future__ import annotations

import numpy as np

# How far the sum of probabilities may be from 1: those of bfloat16 have 8 bits each.
ROUNDED = 0.02


def probabilities_of(scores: np.ndarray, slack: float = 0.0) -> np.ndarray:
    """``(images, classes)``: the scores, or their softmax where they are no probabilities.

    ``slack``: how much farther than ROUNDED the sum of probabilities may be from 1.
    """
    sums = scores.sum(axis=-1)
    if scores.min() >= 0 and np.allclose(sums, 1, rtol=0, atol=ROUNDED + slack):
        return scores
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
