"""WithWeights: a layer that holds the variables of a traced layer and does with them what its ``call`` did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfqat")
class WithWeights(keras.layers.Layer):
    """Operations of ``keras.ops`` on inputs and variables, one after the other; the last one's result is the output.

    Args:
        steps: of each operation, its ``operation`` (serialized), ``args`` and ``kwargs``, where
            ``{"tensor": [what, number]}`` stands for an ``input``, a ``weight`` or the result of an earlier ``step``.
            Without any, the output is the first weight.
        variables: of each variable its ``shape``, ``dtype``, ``trainable``, ``regularizer`` and ``constraint``.
        kind: what the last operation is, e.g. ``multiply_constant`` (see graph.kinds).

    Called on one tensor, or a list of them.
    """

    def __init__(
        self, steps: Sequence[Mapping[str, Any]], variables: Sequence[Mapping[str, Any]], kind: str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._convert_input_args = False  # operations take tensors as they are
        self.steps, self.given_variables, self.kind = list(steps), list(variables), kind
        self.operations = [keras.saving.deserialize_keras_object(step["operation"]) for step in steps]
        self.held: list[Any] = []

    def build(self, input_shape: Any) -> None:
        self.held = [
            self.add_weight(
                name=f"weight{number}",
                shape=tuple(given["shape"]),
                dtype=given["dtype"],
                trainable=given["trainable"],
                regularizer=given["regularizer"],
                constraint=given["constraint"],
                initializer="zeros",
            )
            for number, given in enumerate(self.given_variables)
        ]

    def call(self, inputs: Any) -> Any:
        values = {"input": list(inputs) if isinstance(inputs, list | tuple) else [inputs], "weight": self.held}
        values["step"] = []
        for step, operation in zip(self.steps, self.operations, strict=True):
            args = keras.saving.deserialize_keras_object(step["args"])
            kwargs = keras.saving.deserialize_keras_object(step["kwargs"])
            fill = lambda leaf: values[leaf[0]][leaf[1]]  # noqa: E731
            values["step"].append(operation(*filled(args, fill), **filled(kwargs, fill)))
        return values["step"][-1] if self.steps else ops.copy(self.held[0])  # a tensor, not the variable itself

    def get_config(self) -> dict[str, Any]:
        own = {"steps": self.steps, "variables": self.given_variables, "kind": self.kind}
        return {**super().get_config(), **own}


def filled(nest: Any, fill: Callable[[Any], Any]) -> Any:
    """A nest of arguments with ``fill`` of what stands behind ``tensor`` in place of each ``{"tensor": ...}``."""
    if isinstance(nest, Mapping):
        if set(nest) == {"tensor"}:
            return fill(nest["tensor"])
        return {key: filled(value, fill) for key, value in nest.items()}
    if isinstance(nest, list | tuple):
        return type(nest)(filled(value, fill) for value in nest)
    return nest


def described(variable: Any) -> dict[str, Any]:
    """A variable as WithWeights makes it again."""
    return {
        "shape": list(variable.shape),
        "dtype": variable.dtype,
        "trainable": variable.trainable,
        "regularizer": keras.regularizers.serialize(variable.regularizer) if variable.regularizer else None,
        "constraint": keras.constraints.serialize(variable.constraint) if variable.constraint else None,
    }
