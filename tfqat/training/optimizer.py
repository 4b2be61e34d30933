"""Optimizer: the Keras optimizer and learning rate that a spec asks for."""

from __future__ import annotations

from typing import Any

import keras

OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
# Quantization-aware training starts from trained weights: by default at a tenth of the float phase's rate.
QAT_RATE = 0.1


# What a recovery makes of the rate.
RECOVERED_RATE = 0.5


def make_optimizer(
    training: Any, phase: str, total_steps: int, warmup_steps: int = 0, recovered: int = 0
) -> keras.optimizers.Optimizer:
    """The optimizer of one phase.

    Args:
        training: the spec's training section.
        phase: float or qat.
        total_steps: steps of the whole phase; a cosine schedule ends at 0 there.
        warmup_steps: how many of them the rate takes to rise from 0.
        recovered: how often the phase has gone back with half the rate.
    """
    section = training.optimizer
    rate = section.learning_rate
    if phase == "qat":
        rate = training.qat_learning_rate or section.learning_rate * QAT_RATE
    rate *= RECOVERED_RATE**recovered
    # A constant rate is a schedule, too: as a variable, a checkpoint would bring back the rate before a recovery.
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else rate,
        max(total_steps - warmup_steps, 1),
        alpha=0.0 if section.schedule == "cosine" else 1.0,
        warmup_target=rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    momentum = {"momentum": section.momentum} if section.name == "sgd" else {}
    average = {"use_ema": True, "ema_momentum": section.ema} if section.ema else {}
    clip = {"global_clipnorm": section.clip_norm} if section.clip_norm else {}
    # Keras' weight decay is decoupled from the gradient in all three. None: without the extra op; AdamW takes no None.
    nothing = 0.0 if section.name == "adamw" else None
    return OPTIMIZERS[section.name](
        schedule, weight_decay=section.weight_decay or nothing, **momentum, **average, **clip
    )


def with_loss_scale(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer, and around it one that scales the loss where a layer computes in float16, whose range is small."""
    if any(layer.compute_dtype == "float16" for layer in model._flatten_layers()):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer within one that scales the loss, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)
