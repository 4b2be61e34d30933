"""Oscillation: weights that jump to and fro between two integers; dampened by a loss, or frozen (arXiv:2203.11086).

With ``w`` a kernel, ``s`` its scale, ``i_t = clip(round(w / s), qmin, qmax)`` after step ``t`` and ``m`` the momentum:

    dampening  loss += l_t * sum((s * i - clip(w, s * qmin, s * qmax))^2), no gradient in s and i;
               l_t rises from 0 to ``dampening`` as (1 - cos(pi * t / T)) / 2                  (section 4.2)
    freezing   a change of i against the one before it is an oscillation: o_t = 1, else 0;
               f_t = m * o_t + (1 - m) * f_(t-1),  a_t = m * i_t + (1 - m) * a_(t-1);
               a weight with f_t above the threshold is s * round(a_t) from then on            (section 4.3)

What freezing must remember belongs to the optimizer: checkpoints have it, the trained model has not.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfqat.errors import TfqatError
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.rewrite.model import QuantizedModel, kernel_layers
from tfqat.rewrite.objectives import Objective
from tfqat.training.optimizer import innermost

DAMPENING = "dampening_loss"
# In the place of an integer that is not known yet; no scheme has it.
UNKNOWN = 1e6


def calm(
    model: QuantizedModel,
    optimizer: keras.optimizers.Optimizer,
    total_steps: int,
    dampening: float | None = None,
    freeze_threshold: float | None = None,
    momentum: float = 0.01,
) -> None:
    """Has training with ``optimizer``, which has been built, dampen or freeze the weights that oscillate.

    Raises:
        TfqatError: a kernel has a zero point, or the backend is not TensorFlow.
    """
    layers = kernel_layers(model)
    _check(layers)
    model.add_objective(DAMPENING, _dampening(layers, innermost(optimizer), dampening, total_steps))
    for layer in layers:
        inner = layer._kernel.constraint
        inner = inner.inner if isinstance(inner, Freezing) else inner
        freezing = freeze_threshold is not None
        layer._kernel.constraint = Freezing(layer, optimizer, freeze_threshold, momentum, inner) if freezing else inner


class Freezing(keras.constraints.Constraint):
    """What an optimizer calls after each step with a kernel, for the value to go on with.

    Args:
        layer: whose kernel it is.
        optimizer: that remembers.
        threshold: frequency from which a weight is frozen.
        momentum: of frequency and mean integer.
        inner: the kernel's own constraint, which comes first.
    """

    def __init__(
        self, layer: QuantizedKernel, optimizer: Any, threshold: float | None, momentum: float, inner: Any
    ) -> None:
        self.layer, self.threshold, self.momentum, self.inner = layer, threshold, momentum, inner
        start = {"integer": UNKNOWN, "direction": 0.0, "frequency": 0.0, "mean": 0.0, "frozen": UNKNOWN}
        keeper = innermost(optimizer)
        for name, value in start.items():
            known = keras.initializers.Constant(value)
            own = f"{layer.name.replace('/', '_')}_{name}"
            setattr(self, name, keeper.add_variable(layer._kernel.shape, known, "float32", name=own))

    def __call__(self, w: Any) -> Any:
        kernel = ops.convert_to_tensor(w if self.inner is None else self.inner(w))
        values = ops.cast(kernel, "float32")
        scale = self.layer.scale_for(values)
        self._note(integers_of(self.layer, values, scale))
        frozen = ops.convert_to_tensor(self.frozen)
        return ops.where(frozen == UNKNOWN, kernel, ops.cast(frozen * scale, kernel.dtype))

    def _note(self, now: Any) -> None:
        before, mean, keep = ops.convert_to_tensor(self.integer), ops.convert_to_tensor(self.mean), 1 - self.momentum
        first = before == UNKNOWN
        change = ops.where(first, 0.0, ops.sign(now - before))
        turned = ops.cast(change * self.direction < 0, "float32")
        mean = ops.where(first, now, self.momentum * now + keep * mean)
        frequency = self.momentum * turned + keep * self.frequency
        frozen = ops.convert_to_tensor(self.frozen)
        due = ops.logical_and(frozen == UNKNOWN, frequency > self.threshold)
        self.frozen.assign(ops.where(due, ops.round(mean), frozen))
        self.direction.assign(ops.where(change == 0, self.direction, change))
        self.frequency.assign(frequency)
        self.mean.assign(mean)
        self.integer.assign(now)


def integers_of(layer: QuantizedKernel, kernel: Any, scale: Any) -> Any:
    """The integers that a kernel rounds to."""
    scheme = layer.weight_scheme
    return ops.clip(ops.round(kernel / scale), float(scheme.qmin), float(scheme.qmax))


def _dampening(
    layers: list[QuantizedKernel], optimizer: keras.optimizers.Optimizer, weight: float | None, total_steps: int
) -> Objective | None:
    if weight is None:
        return None

    def terms(inputs: Any, values: Any) -> dict[str, Any]:
        done = ops.minimum(ops.cast(optimizer.iterations, "float32") / max(total_steps, 1), 1.0)
        risen = (1.0 - ops.cos(np.pi * done)) / 2.0
        return {DAMPENING: weight * risen * sum(distance(layer) for layer in layers)}

    return Objective([DAMPENING], (), terms)


def distance(layer: QuantizedKernel) -> Any:
    """``sum((s * i - clip(w, s * qmin, s * qmax))^2)`` of the layer's kernel."""
    kernel, scheme = ops.cast(layer._kernel, "float32"), layer.weight_scheme
    scale = ops.stop_gradient(layer.scale_for(kernel))
    rounded = ops.stop_gradient(integers_of(layer, kernel, scale) * scale)
    return ops.sum(ops.square(rounded - ops.clip(kernel, scale * float(scheme.qmin), scale * float(scheme.qmax))))


def _check(layers: list[QuantizedKernel]) -> None:
    if keras.backend.backend() != "tensorflow":
        raise TfqatError(
            f"oscillation: needs the TensorFlow backend of Keras, whose steps see the optimizer's count; this is "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow, or training_config.oscillation to null."
        )
    for layer in layers:
        if not layer.weight_scheme.symmetric:
            raise TfqatError(
                f"oscillation: the kernel of {layer.name!r} has a zero point; expected symmetric kernels. Set "
                "training_config.oscillation to null, or choose another target."
            )
