"""Precision: the types that a model's layers compute in and keep their weights in, as a Keras dtype policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from tfqat.errors import TfqatError


@contextmanager
def precision(policy: str | None) -> Iterator[None]:
    """Layers that are made in the block have the policy, unless they are given another; None changes nothing."""
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def check_precision(model: keras.Model, policy: str | None) -> None:
    """Raises TfqatError where no layer with weights has the policy: the model's function set others."""
    policies = {layer.dtype_policy.name for layer in model._flatten_layers(include_self=False) if layer.weights}
    if policy is not None and policy not in policies:
        raise TfqatError(
            f"training_config.precision: expected layers of {policy}, but those of the model are of "
            f"{', '.join(sorted(policies))}: its function sets them itself. Set the precision there and leave it out "
            "of the spec, or leave dtype and set_dtype_policy out of the function."
        )
