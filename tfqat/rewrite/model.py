"""QuantizedModel: a flat functional Keras model that carries its Placement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from tfqat.core.listing import some
from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.graph.placement import Placement, placement_from_dict
from tfqat.rewrite import absorbed  # noqa: F401  registers its layer with the others
from tfqat.rewrite.batch_norm import FreezableBatchNormalization
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.rewrite.objectives import Objective, Objectives
from tfqat.rewrite.quantizer import RangeEstimator


@keras.saving.register_keras_serializable("tfqat")
class QuantizedModel(keras.Model):
    """A model with quantized layers and Quantizers, and the plan by which they were put there.

    Made by ``prepare`` (``finalized`` False) and ``finalize`` (True); saves and loads as any functional model.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        placement = kwargs.pop("placement", None)
        finalized = kwargs.pop("finalized", False)
        with room_for():  # keras.models.load_model makes none, and visits a chain of layers recursively
            super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self._plan = _Plan(placement)
        self._objectives = Objectives()
        self.finalized = finalized
        tie_groups(self)
        tie_kernels(self)

    @property
    def placement(self) -> Placement:
        """The plan that the model was made by."""
        if self._plan.placement is None:
            raise TfqatError(
                f"Model {self.name!r} was cloned without its placement: save and load it, or prepare it again."
            )
        return self._plan.placement

    def add_objective(self, key: str, objective: Objective | None) -> None:
        """Has training add terms to the loss, in the place of what ``key`` named before; None for none."""
        self._objectives.set(key, objective)
        self.train_function = None  # the one that Keras may have made computes the terms before

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if training and self._objectives.reads:
            return self._objectives.forward(self, inputs)
        return super().call(inputs, training=training, mask=mask)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        self._objectives.training = training
        if not (training and self._objectives.by_key):
            return loss
        return loss + self._objectives.total(x, self._aggregate_additional_loss)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self._objectives.shown.values()]

    def get_metrics_result(self) -> dict[str, Any]:
        found = super().get_metrics_result()
        # Evaluation adds no term, so it has none to show.
        hidden = () if self._objectives.training else self._objectives.shown
        return {name: value for name, value in found.items() if name not in hidden}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        plan = self._plan.placement
        return {**config, "placement": plan and plan.to_dict(), "finalized": self.finalized}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizedModel:
        config = dict(config)
        plan, finalized = config.pop("placement", None), config.pop("finalized", False)
        model = super().from_config(config, custom_objects=custom_objects)
        model._plan = _Plan(plan and placement_from_dict(plan))
        model.finalized = finalized
        return model


class _Plan:
    """Holds the Placement where Keras does not track its dictionaries."""

    def __init__(self, placement: Placement | None) -> None:
        self.placement = placement


def check_calibrated(model: keras.Model) -> None:
    """Raises TfqatError unless it is a prepared model, not finalized, all of whose Quantizers have a range."""
    if not isinstance(model, QuantizedModel):
        raise TfqatError(
            f"Model {model.name!r} is a {type(model).__name__}, not one that tfqat.prepare returned: give the one that "
            "tfqat.prepare returned, after tfqat.calibrate."
        )
    if model.finalized:
        raise TfqatError(f"Model {model.name!r} is finalized: its float kernels are gone. Give the one before that.")
    unseen = [layer.name for layer in range_layers(model) if not layer.has_data]
    if unseen:
        raise TfqatError(
            f"{len(unseen)} Quantizers have seen no data: {some(unseen)}. Train, or run tfqat.calibrate first, on "
            "representative data."
        )


def range_layers(model: keras.Model) -> list[RangeEstimator]:
    """The Quantizers and observers of a model, in order."""
    return [layer for layer in _layers(model) if isinstance(layer, RangeEstimator)]


def kernel_layers(model: keras.Model) -> list[QuantizedKernel]:
    """The layers with quantized kernels, in order."""
    return [layer for layer in _layers(model) if isinstance(layer, QuantizedKernel)]


def batch_norm_layers(model: keras.Model) -> list[FreezableBatchNormalization]:
    """The BatchNormalization layers whose statistics can be frozen."""
    return [layer for layer in _layers(model) if isinstance(layer, FreezableBatchNormalization)]


def tie_groups(model: keras.Model) -> None:
    """Ties the range layers of each group to each other."""
    groups: dict[str, list[RangeEstimator]] = {}
    for layer in range_layers(model):
        if layer.group is not None:
            groups.setdefault(layer.group, []).append(layer)
    for members in groups.values():
        for member in members:
            member.tie(members)


def tie_kernels(model: keras.Model) -> None:
    """Lets learned scales of kernels freeze with the first of the learned ranges, where these freeze by themselves."""
    clocks = [layer for layer in range_layers(model) if layer.ranges == "learned" and layer.freeze_after is not None]
    for layer in kernel_layers(model):
        layer.tie(clocks[0] if clocks else None)


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    yield from (layer for layer in model._flatten_layers(include_self=False, recursive=True))
