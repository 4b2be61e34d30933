"""Build: the float model of a spec, checked against the spec's images and task."""

from __future__ import annotations

from typing import Any

import keras

from tfqat.models.zoo import float_model, source_of
from tfqat.tasks import task_of
from tfqat.training.freezing import freeze_layers


def build_model(spec: Any, trust: bool = False) -> keras.Model:
    """The float model of ``spec``, its weights drawn from ``spec.random_seed``, with the layers frozen that it freezes.

    Python code in a checkpoint (Lambda layers) is refused without ``trust``.

    Raises:
        TfqatError: a model that cannot be built or read, or does not fit the spec's images and classes.
    """
    model = float_model(spec, trust)
    task_of(spec).check(model, source_of(spec.model))
    freeze_layers(model, spec.training)
    return model
