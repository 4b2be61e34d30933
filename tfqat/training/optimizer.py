"""Optimizer: the Keras optimizer and learning rate that a spec asks for."""

from __future__ import annotations

from typing import Any

import keras

OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
# Quantization-aware training starts from trained weights: by default at a tenth of the float phase's rate.
QAT_RATE = 0.1


def make_optimizer(training: Any, phase: str, total_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of one phase.

    Args:
        training: the spec's training section.
        phase: float or qat.
        total_steps: steps of the whole phase; a cosine schedule ends at 0 there.
    """
    section = training.optimizer
    rate = section.learning_rate
    if phase == "qat":
        rate = training.qat_learning_rate or section.learning_rate * QAT_RATE
    if section.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, max(total_steps, 1))
    momentum = {"momentum": section.momentum} if section.name == "sgd" else {}
    # Keras' weight decay is decoupled from the gradient in all three. None: without the extra op.
    return OPTIMIZERS[section.name](rate, weight_decay=section.weight_decay or None, **momentum)
