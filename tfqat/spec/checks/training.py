"""Training: checks of `training_config`."""

from __future__ import annotations

from typing import Any

from tfqat.spec.checks.check import (
    ARCHITECTURE,
    MODEL,
    RANGES,
    TRAIN,
    on,
    only_for,
    plain,
)


def _something_to_train(epochs: Any, enable_qat: Any, weights: Any, architecture: Any, checkpoint: Any) -> str | None:
    if epochs or (enable_qat and (architecture is None or weights is not None or checkpoint is not None)):
        return None
    if not enable_qat:
        return "received 0 with enable_qat: false, so nothing would be trained; expected at least 1"
    return (
        f"received 0, so that random weights of {architecture} would be quantized; expected at least 1, or trained "
        "weights (model_config.checkpoint, model_config.weights)"
    )


def _for_qat(value: Any, enable_qat: Any) -> str | None:
    if value is None or enable_qat:
        return None
    return "is for quantization-aware training, but enable_qat is false; expected null, or enable_qat: true"


def _for_epochs(value: Any, epochs: Any) -> str | None:
    if value is None or epochs:
        return None
    return "is for quantization-aware epochs, but num_epochs is 0; expected null, or num_epochs of at least 1"


def _within_training(value: Any, epochs: Any) -> str | None:
    if value is None or value < epochs:
        return None
    return f"received {value} with num_epochs: {epochs}, so it would never come; expected less, or null"


def _warmup_ends(warmup: Any, float_epochs: Any, epochs: Any, enable_qat: Any) -> str | None:
    for key, given in (("float_epochs", float_epochs), ("num_epochs", epochs if enable_qat else 0)):
        if given and warmup >= given:
            return f"received {warmup} with {key}: {given}, so the rate would only rise; expected less"
    return None


def _precision_set(precision: Any, checkpoint: Any) -> str | None:
    if precision is None or checkpoint is None or checkpoint.endswith(".weights.h5"):
        return None
    return (
        f"received {precision}, but the layers of {checkpoint} have a precision of their own; expected null. To change "
        "it, make the model by architecture or python, with the weights from a .weights.h5 file"
    )


def _something_to_calm(section: Any) -> str | None:
    if section is None or any(plain(section).get(key) is not None for key in ("dampening", "freeze_threshold")):
        return None
    return "asks for nothing; expected dampening, freeze_threshold or both"


def _frozen_or_averaged(threshold: Any, ema: Any) -> str | None:
    if threshold is None or ema is None:
        return None
    return f"received {threshold} beside optimizer.ema: {ema}, which would average frozen weights with what they were"


def _something_to_learn(weight: Any, features: Any) -> str | None:
    if weight or features:
        return None
    return "received 0 without features, so nothing would be learnt; expected above 0, or features"


CHECKS = (
    on(
        f"{TRAIN}.float_epochs",
        _something_to_train,
        f"{TRAIN}.enable_qat",
        f"{MODEL}.weights",
        ARCHITECTURE,
        f"{MODEL}.checkpoint",
    ),
    on(f"{TRAIN}.optimizer.momentum", only_for(("sgd",), 0.9), f"{TRAIN}.optimizer.name"),
    on(
        f"{TRAIN}.optimizer.warmup_epochs",
        _warmup_ends,
        f"{TRAIN}.float_epochs",
        f"{TRAIN}.num_epochs",
        f"{TRAIN}.enable_qat",
    ),
    on(f"{TRAIN}.freeze_ranges_epoch", _for_qat, f"{TRAIN}.enable_qat"),
    on(f"{TRAIN}.freeze_ranges_epoch", _within_training, f"{TRAIN}.num_epochs"),
    on(f"{TRAIN}.freeze_ranges_epoch", only_for(("moving_average", "learned"), None), RANGES),
    on(f"{TRAIN}.freeze_batch_norm_epoch", _for_qat, f"{TRAIN}.enable_qat"),
    on(f"{TRAIN}.freeze_batch_norm_epoch", _within_training, f"{TRAIN}.num_epochs"),
    on(f"{TRAIN}.precision", _precision_set, f"{MODEL}.checkpoint"),
    on(f"{TRAIN}.oscillation", _for_qat, f"{TRAIN}.enable_qat"),
    on(f"{TRAIN}.oscillation", _for_epochs, f"{TRAIN}.num_epochs"),
    on(f"{TRAIN}.oscillation", _something_to_calm),
    on(f"{TRAIN}.oscillation.freeze_threshold", _frozen_or_averaged, f"{TRAIN}.optimizer.ema"),
    on(f"{TRAIN}.distillation", _for_qat, f"{TRAIN}.enable_qat"),
    on(f"{TRAIN}.distillation", _for_epochs, f"{TRAIN}.num_epochs"),
    on(f"{TRAIN}.distillation.weight", _something_to_learn, f"{TRAIN}.distillation.features"),
)
