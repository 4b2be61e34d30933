"""Objective: terms that training adds to the loss of a prepared model; evaluation, files and checkpoints know none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from tfqat.graph.depth import room_for

# Of the inputs of a batch and the tensors that the objective reads: name of a term -> scalar.
Terms = Callable[[Any, Sequence[Any]], Mapping[str, Any]]


class Objective:
    """Some terms of the loss.

    Args:
        names: of the terms; metrics of these names show their means over an epoch.
        reads: tensors of the model (KerasTensors) whose values they take.
        terms: what they are.
    """

    def __init__(self, names: Iterable[str], reads: Iterable[Any], terms: Terms) -> None:
        self.reads, self.terms = tuple(reads), terms
        self.shown = {name: keras.metrics.Mean(name=name) for name in names}


class Objectives:
    """Those of one model, by key; a class of its own, so that Keras neither tracks nor saves what they hold."""

    def __init__(self) -> None:
        self.by_key: dict[str, Objective] = {}
        # Whether the step at hand, or the one that was traced last, is one of training.
        self.training = False
        self._model: keras.Model | None = None
        self._values: Sequence[Any] = ()

    def set(self, key: str, objective: Objective | None) -> None:
        """Puts an objective in the place of the one of that key, if any; None leaves the place empty."""
        self.by_key.pop(key, None)
        if objective is not None:
            self.by_key[key] = objective
        self._model = None

    @property
    def shown(self) -> dict[str, keras.metrics.Metric]:
        """The mean of each term."""
        return {name: mean for objective in self.by_key.values() for name, mean in objective.shown.items()}

    @property
    def reads(self) -> list[Any]:
        """The tensors that the terms take, one objective's after the other's."""
        return [tensor for objective in self.by_key.values() for tensor in objective.reads]

    def forward(self, model: keras.Model, inputs: Any) -> Any:
        """The outputs of a training step; what the terms read is kept for ``total``."""
        if self._model is None:
            with room_for():
                self._model = keras.Model(model._inputs_struct, [model._outputs_struct, self.reads])
        outputs, self._values = self._model(inputs, training=True)
        return outputs

    def total(self, inputs: Any, count: Callable[[Any], Any]) -> Any:
        """The sum of the terms in the training step at hand; ``count`` makes of a loss what a replica adds."""
        values, self._values = list(self._values), ()  # values of a trace must not outlive it
        total = 0.0
        for objective in self.by_key.values():
            own = [values.pop(0) for _ in objective.reads]
            for name, term in objective.terms(inputs, own).items():
                objective.shown[name].update_state(term)
                total = total + count(term)
        return total
