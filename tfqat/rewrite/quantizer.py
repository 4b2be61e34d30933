"""Quantizer: the layer that holds and learns the range of one tensor, and rounds the tensor to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from tfqat.core.encoding import Encoding
from tfqat.core.scheme import Scheme, scale_and_zero_point
from tfqat.rewrite.fake_quant import (
    FLOOR,
    extent_of,
    fake_quantize,
    fake_quantize_relu6,
    round_exactly,
    round_relu6_exactly,
)
from tfqat.rewrite.jit import jit_pays
from tfqat.rewrite.learned import LARGEST, fake_quantize_learned, fake_quantize_relu6_learned, learned_extent

RANGES = ("moving_average", "learned", "fixed")
# Until a tensor has been seen, a range that suits what follows a ReLU6; the first look replaces it.
UNSEEN = 6.0
# Weight of a range that calibration has set and no training step has moved yet.
CALIBRATED = 2.0
# A batch that reaches this many times as far as the calibrated range shows that calibration saw other values.
FAR = 2.0


class RangeEstimator(keras.layers.Layer):
    """What Quantizer and RangeObserver have in common: a range, and how it follows the data.

    ``extent`` holds ``[max|x|]`` (symmetric) or ``[max(-x), max(x)]``. A training step moves it by
    ``extent += (observed - extent) * (1 - decay) / weight``, where ``weight = decay * weight + 1 - decay`` starts at
    0: the moving average without the bias of its start (arXiv:1412.6980, section 3). A weight of 0 says that no data
    has been seen. A calibrated range goes on as an average of full weight, unless the first training batch reaches
    FAR times as far. Evaluation never moves a range. Replicas (tf.distribute) share one range: after each step, the
    mean of what their parts of the batch make of it, or what the optimizer makes of their gradients.

    Args:
        scheme: Scheme of the tensor, or its dictionary.
        ranges: ``moving_average``, ``learned`` (by gradient) or ``fixed`` (only calibration sets it).
        decay: of the moving average, from 0 to 1.
        observe_fraction: share of the batch that is looked at, from above 0 to 1.
        freeze_after: training step after which the range stays; None for never.
        nonnegative: whether the tensor is known to have no negative values.
        group: name of the group whose members share one range, None for none.
        rate_multiplier: of a learned range, how many times as far as by the optimizer's own learning rate it moves;
            ``extent`` then holds a ``rate_multiplier``-th of the extent.
        fixed_range: real range (low, high) that the device prescribes, None for none; it then never moves.
    """

    def __init__(
        self,
        scheme: Scheme | dict[str, Any],
        ranges: str = "moving_average",
        decay: float = 0.99,
        observe_fraction: float = 1.0,
        freeze_after: int | None = None,
        nonnegative: bool = False,
        group: str | None = None,
        fixed_range: Sequence[float] | None = None,
        rate_multiplier: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scheme = scheme if isinstance(scheme, Scheme) else Scheme(**{**scheme, "axis": tuple(scheme["axis"])})
        self.fixed_range = None if fixed_range is None else tuple(fixed_range)
        self.ranges = ranges if fixed_range is None else "fixed"
        self.decay, self.observe_fraction = decay, observe_fraction
        self.freeze_after, self.nonnegative, self.group = freeze_after, nonnegative, group
        self.rate_multiplier = rate_multiplier
        self.supports_jit = jit_pays()
        self.supports_masking = True
        self._tied = _Tied((self,))

    def build(self, input_shape: Sequence[int | None]) -> None:
        state = {"trainable": False, "dtype": "float32", "autocast": False, "aggregation": "mean"}
        size = 1 if self.scheme.symmetric else 2
        learned = {**state, "trainable": self.ranges == "learned"}
        start, seen = keras.initializers.Constant(UNSEEN / self._unit), "zeros"
        if self.fixed_range is not None:
            start, seen = _Given(extent_of_range(self.scheme, *self.fixed_range)), "ones"
        self.extent = self.add_weight(name="extent", shape=(size,), initializer=start, **learned)
        self.weight = self.add_weight(name="weight", shape=(), initializer=seen, **state)
        self.frozen = self.add_weight(name="frozen", shape=(), initializer="zeros", **state)
        if self.ranges == "learned":
            self.held = self.add_weight(name="held", shape=(size,), initializer=start, **state)
        if self.freeze_after is not None:
            self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", **state)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = (
            "ranges",
            "decay",
            "observe_fraction",
            "freeze_after",
            "nonnegative",
            "group",
            "fixed_range",
            "rate_multiplier",
        )
        config = {"scheme": {**asdict(self.scheme), "axis": list(self.scheme.axis)}}
        return {**super().get_config(), **config, **{key: getattr(self, key) for key in own}}

    @property
    def _unit(self) -> float:
        """What ``extent`` is multiplied by to be the extent."""
        return self.rate_multiplier if self.ranges == "learned" else 1.0

    def tie(self, members: Sequence[RangeEstimator]) -> None:
        """Shares one range, the largest, with the other members of the group."""
        self._tied = _Tied(tuple(members))

    def shared_extent(self) -> Any:
        """The extent that quantizing reads: the largest in the group."""
        if self.group is not None and len(self._tied.members) == 1:
            raise ValueError(
                f"Quantizer {self.name!r} shares its range with group {self.group!r}, but is not tied to it: load the "
                "model with tfqat.load_model, or as the QuantizedModel that tfqat.prepare returned."
            )
        extent = self.own_extent()
        for member in self._tied.members:
            extent = extent if member is self else ops.maximum(extent, member.own_extent())
        return extent

    def own_extent(self) -> Any:
        """The extent of this tensor alone; once frozen, a learned one is that of the moment of freezing."""
        if self.ranges != "learned":
            return self.extent
        return ops.where(self.frozen > 0.5, ops.convert_to_tensor(self.held), self._learned())

    def _learned(self) -> Any:
        return learned_extent(self.extent, *self.limits(), self._unit)

    def limits(self) -> tuple[Any, Any]:
        """The least and the largest extent that may be learned; an end at 0 stays there if nothing is beyond it."""
        if self.scheme.symmetric:
            return FLOOR * self.scheme.qmax, LARGEST
        return 0.0, np.array([0.0 if self.nonnegative else LARGEST, LARGEST], np.float32)

    def observe(self, inputs: Any) -> None:
        """Moves the range towards the values at hand, unless it is frozen."""
        observed = self.extent_in(self._looked_at(ops.stop_gradient(inputs)))
        extent, before = ops.convert_to_tensor(self.extent), ops.convert_to_tensor(self.weight)
        # Calibration that the first training step proves wrong (a BatchNorm whose moving statistics lag behind its
        # batches) would clip nearly all values and blow up the gradients: then the average starts anew.
        wrong = ops.logical_and(before == CALIBRATED, ops.any(observed > FAR * extent))
        start = ops.where(wrong, 0.0, ops.minimum(before, 1.0))
        weight = start * self.decay + (1.0 - self.decay)
        moves = self._moves(observed)
        self.extent.assign(ops.where(moves, extent + (observed - extent) * ((1.0 - self.decay) / weight), extent))
        self.weight.assign(ops.where(moves, weight, before))

    def extent_in(self, values: Any) -> Any:
        """The extent of the values at hand."""
        return extent_of(values, self.scheme, self.nonnegative)

    def set_range(self, extent: Any) -> None:
        """Sets the range from calibration, also a frozen one; the moving average goes on from it."""
        self.extent.assign(np.asarray(extent, np.float32) / np.float32(self._unit))
        if self.ranges == "learned":
            self.held.assign(self._learned())
        self.weight.assign(CALIBRATED)

    def freeze(self) -> None:
        """Stops the range where it is, in any loop, also one that was compiled before."""
        if self.ranges == "learned" and not self.is_frozen:
            # An optimizer that knows the extent may go on moving it, by momentum if not by gradient.
            self.held.assign(np.array(ops.convert_to_numpy(self.own_extent())))
        self.frozen.assign(1.0)

    @property
    def is_frozen(self) -> bool:
        """Whether the range stays where it is."""
        return float(ops.convert_to_numpy(self.frozen)) > 0.5

    @property
    def has_data(self) -> bool:
        """Whether a batch, or a calibration, has set the range."""
        return float(ops.convert_to_numpy(self.weight)) > 0

    def hold_when_due(self) -> None:
        """Notes a training step of a learned range, and freezes it after ``freeze_after`` of them."""
        self.weight.assign(1.0)  # the gradient is from data, whether or not calibration came first
        if self.freeze_after is None:
            return
        self.steps.assign(self.steps + 1.0)
        frozen, held = ops.convert_to_tensor(self.frozen), ops.convert_to_tensor(self.held)
        due = ops.logical_and(self.steps > float(self.freeze_after), frozen < 0.5)
        self.held.assign(ops.where(due, self.own_extent(), held))
        self.frozen.assign(ops.where(due, 1.0, frozen))

    def encoding(self, origin: str = "learned") -> Encoding:
        """What was learnt: the Encoding of the range as it stands, the group's where there is one."""
        extent = ops.convert_to_numpy(self.shared_extent())
        low, high = -extent[0], extent[-1]
        return Encoding(self.scheme, *scale_and_zero_point(self.scheme, low, high), origin)

    def _looked_at(self, inputs: Any) -> Any:
        """The first rows of the batch (which is shuffled): one piece of memory, where every n-th row is a copy."""
        if self.observe_fraction == 1.0:
            return inputs
        rows = ops.cast(ops.shape(inputs)[0], "float32") * self.observe_fraction
        return inputs[: ops.cast(ops.maximum(ops.round(rows), 1.0), "int32")]

    def _moves(self, observed: Any) -> Any:
        # A batch with NaN or inf must not spoil the range that the last good checkpoint holds.
        moves = ops.logical_and(self.frozen < 0.5, ops.all(ops.isfinite(observed)))
        if self.freeze_after is None:
            return moves
        self.steps.assign(self.steps + 1.0)
        return ops.logical_and(moves, self.steps <= float(self.freeze_after))


def extent_of_range(scheme: Scheme, low: float, high: float) -> np.ndarray:
    """The extent of the real range ``[low, high]``: ``[max|x|]`` or, asymmetric, ``[max(-x), max(x)]``."""
    return np.asarray([max(-low, high)] if scheme.symmetric else [-low, high], np.float32)


class _Given(keras.initializers.Initializer):
    """Sets a variable to given values."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.cast(self.values, dtype)


class _Tied:
    """The members of one group; a class of its own, so that Keras does not track them as each other's layers."""

    def __init__(self, members: tuple[RangeEstimator, ...]) -> None:
        self.members = members


@keras.saving.register_keras_serializable("tfqat")
class Quantizer(RangeEstimator):
    """Rounds a tensor to the integers of its range, which it learns; see RangeEstimator.

    Input and output: any shape, float; the output is ``scale * (q - zero_point)``. With ``absorbs_relu6`` it computes
    that of ``relu6(inputs)``; see rewrite.absorbed. With ``half_up`` evaluation rounds by TensorFlow's kernel, too, as
    TFMOT does; without, half to even as the runtimes of exported files do.
    """

    def __init__(
        self, scheme: Scheme | dict[str, Any], *, absorbs_relu6: bool = False, half_up: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(scheme, **kwargs)
        self.absorbs_relu6, self.half_up = absorbs_relu6, half_up

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "absorbs_relu6": self.absorbs_relu6, "half_up": self.half_up}

    def extent_in(self, values: Any) -> Any:
        extent = super().extent_in(values)
        return ops.clip(extent, 0.0, 6.0) if self.absorbs_relu6 else extent

    def limits(self) -> tuple[Any, Any]:
        lowest, highest = super().limits()
        return lowest, 6.0 if self.absorbs_relu6 else highest

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        values = ops.cast(inputs, "float32")
        if training and self.ranges == "moving_average":
            self.observe(values)
        if training and self.ranges == "learned":
            self.hold_when_due()
        return ops.cast(self._quantize(training)(values, self.shared_extent(), self.scheme), inputs.dtype)

    def _quantize(self, training: bool | None) -> Callable[[Any, Any, Scheme], Any]:
        if not (training or self.half_up):
            return round_relu6_exactly if self.absorbs_relu6 else round_exactly
        if self.ranges == "learned":
            return fake_quantize_relu6_learned if self.absorbs_relu6 else fake_quantize_learned
        return fake_quantize_relu6 if self.absorbs_relu6 else fake_quantize


@keras.saving.register_keras_serializable("tfqat")
class RangeObserver(RangeEstimator):
    """Watches the range of a tensor inside a fused block and passes it on unchanged; see RangeEstimator."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training and self.ranges != "fixed":
            self.observe(ops.cast(inputs, "float32"))
        return inputs
